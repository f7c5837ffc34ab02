"""The Triton kernels: through Triton's interpreter, and compiled where there is a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')  # read once, while Triton is imported
pytest.importorskip('triton', reason='Triton is not installed')

from lesa_mmdet.attention import triton as backend  # noqa: E402
from lesa_mmdet.attention.reference import attend_reference  # noqa: E402
from lesa_mmdet.attention.triton import attend_triton  # noqa: E402

INTERPRETED = backend.INTERPRETED.value
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(
            'cpu',
            marks=pytest.mark.skipif(not INTERPRETED, reason='with a GPU the kernels are compiled'),
        ),
        pytest.param(
            'cuda',
            marks=pytest.mark.skipif(INTERPRETED, reason='no GPU, or TRITON_INTERPRET is set'),
        ),
    ],
)
def device(request):
    return request.param


def make_inputs(batch, heads, rows, cols, d, dv, dtype=torch.float32, device='cpu', scale=1.0):
    """q, k, v as views of one projection's output, row and col as the tables give them."""
    generator = torch.Generator().manual_seed(rows * 31 + cols)
    qkv = torch.randn(batch, heads, 2 * d + dv, rows * cols, generator=generator)
    row = torch.randn(batch, heads, rows * cols, rows, generator=generator)
    col = torch.randn(batch, heads, rows * cols, cols, generator=generator)
    qkv, row, col = (x.mul(scale).to(device, dtype) for x in (qkv, row, col))
    return [*qkv.transpose(-1, -2).split((d, d, dv), -1), row, col]


def run(attend, inputs, grad_out):
    """Output and all five gradients."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = attend(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad_out)]


def sensitivities(q, k, v, row, col, grad_out, smallest):
    """How far output and gradients move if every weight moves by its own size at most.

    Sums of absolute values instead of values, so the relative error of a weight times this bounds
    the absolute error of a result. ``smallest`` is what a weight is taken for at least.
    """
    rows, cols = row.shape[-1], col.shape[-1]
    logits = q @ k.mT + (row[..., :, None] + col[..., None, :]).flatten(-2)
    terms = q.abs() @ k.abs().mT + (row.abs()[..., :, None] + col.abs()[..., None, :]).flatten(-2)
    weights = logits.softmax(-1) + smallest
    out = weights @ v.abs()
    delta = (grad_out.abs() * out).sum(-1, keepdim=True)
    grad_logits = weights * (1 + grad_out.abs() @ v.abs().mT + delta)
    grad_map = grad_logits.unflatten(-1, (rows, cols))
    results = [
        out,
        grad_logits @ k.abs(),
        grad_logits.mT @ q.abs(),
        weights.mT @ grad_out.abs(),
        grad_map.sum(-1),
        grad_map.sum(-2),
    ]
    return results, terms.max()


def assert_matches_the_definition(inputs, grad_out):
    """Compare with the definition in float64, on the same (rounded) inputs.

    A weight is off by half a unit in the last place of a logit, computed in float32, and by what
    the storage type leaves of it: float32 a few units; a 16-bit type one unit in the weight and one
    in the result (Triton's interpreter cuts where a GPU rounds).
    """
    results = run(attend_triton, inputs, grad_out)
    exact_inputs = [x.detach().double() for x in (*inputs, grad_out)]
    expected = run(attend_reference, exact_inputs[:5], exact_inputs[5])
    info = torch.finfo(inputs[0].dtype)
    smallest = info.tiny * (1 if info.dtype == 'float32' else info.eps) / info.eps
    sensitive, terms = sensitivities(*exact_inputs, smallest)
    storage = (4 if info.dtype == 'float32' else 2) * info.eps
    unit = storage + torch.finfo(torch.float32).eps * terms
    for name, result, value, bound in zip(
        ('out', 'q', 'k', 'v', 'row', 'col'), results, expected, sensitive
    ):
        assert result.dtype == inputs[0].dtype
        assert result.shape == value.shape
        excess = ((result.double() - value).abs() / (unit * bound)).max()
        assert excess <= 1, f'{name} is {excess:.2f} times as far off as rounding allows'


def random_like_output(inputs):
    generator = torch.Generator().manual_seed(0)
    v = inputs[2]
    return torch.randn(v.shape, generator=generator).to(v)


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 2),
    rows=st.integers(1, 17),
    cols=st.integers(1, 17),
    dims=st.sampled_from([(16, 32), (4, 8), (24, 40), (1, 3)]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape_matches_the_definition(device, batch, heads, rows, cols, dims, dtype):
    inputs = make_inputs(batch, heads, rows, cols, *dims, dtype, device)
    assert_matches_the_definition(inputs, random_like_output(inputs))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize(
    ('size', 'dims'),
    [
        ((2, 67), (16, 32)),  # wider than a tile of keys
        ((5, 32), (16, 32)),
        ((8, 8), (64, 128)),
        ((3, 7), (64, 128)),
        ((4, 8), (128, 16)),
        ((3, 5), (17, 100)),
    ],
    ids=str,
)
def test_wide_maps_and_wide_heads_match_the_definition(device, size, dims, dtype):
    inputs = make_inputs(1, 1, *size, *dims, dtype, device)
    assert_matches_the_definition(inputs, random_like_output(inputs))


@pytest.mark.parametrize('layout', ['contiguous', 'heads last', 'expanded'])
def test_any_strides_match_the_definition(device, layout):
    inputs = make_inputs(1, 2, 4, 16, 8, 16, device=device)
    grad_out = random_like_output(inputs)
    if layout == 'contiguous':
        inputs = [x.contiguous() for x in inputs]
    elif layout == 'heads last':
        inputs = [x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for x in inputs]
        grad_out = grad_out.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    else:
        grad_out = torch.ones((), device=device).expand_as(grad_out)
    assert_matches_the_definition(inputs, grad_out)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_extreme_logits_match_the_definition(device, dtype):
    q, k, v, row, col = make_inputs(1, 1, 5, 19, 16, 32, dtype, device, scale=3)
    row, col = row * 3000, col * 1000
    assert row.abs().max() > 1e4
    inputs = [q, k, v, row, col]
    assert_matches_the_definition(inputs, random_like_output(inputs))


def test_equal_logits_give_the_mean(device):
    q, k, v, row, col = make_inputs(1, 1, 3, 11, 16, 32, device=device)
    for logit in (0.0, 1e4, -1e4):
        out = attend_triton(torch.zeros_like(q), k, v, torch.full_like(row, logit), 0 * col)
        torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(v))


def test_two_runs_are_bit_equal(device):
    inputs = make_inputs(1, 2, 3, 40, 16, 32, torch.float16, device)
    grad_out = random_like_output(inputs)
    for first, second in zip(*(run(attend_triton, inputs, grad_out) for _ in range(2))):
        assert torch.equal(first, second)


def test_empty_batch_gives_empty_results(device):
    inputs = make_inputs(0, 2, 3, 5, 8, 16, device=device)
    out, *grads = run(attend_triton, inputs, torch.empty_like(inputs[2]))
    assert out.shape == inputs[2].shape
    assert [grad.shape for grad in grads] == [x.shape for x in inputs]


def test_output_lies_channel_by_channel(device):
    out = attend_triton(*make_inputs(1, 2, 3, 5, 8, 16, device=device))
    assert out.transpose(-1, -2).is_contiguous()


def test_compiles_as_one_operation(device):
    inputs = [x.detach().requires_grad_() for x in make_inputs(2, 1, 3, 4, 4, 8, device=device)]
    torch.library.opcheck(backend._attend, inputs)
    results = backend._attend(*inputs)
    tensors = [x.detach() for x in (results[0], *inputs, *results)]
    torch.library.opcheck(backend._attend_backward, tensors)


def test_a_second_derivative_is_refused(device):
    inputs = [x.detach().requires_grad_() for x in make_inputs(1, 1, 2, 3, 4, 8, device=device)]
    (grad,) = torch.autograd.grad(attend_triton(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match='differentiable once'):
        grad.sum().backward()


@pytest.mark.parametrize(
    ('dims', 'dtype', 'message'),
    [((4, 8), torch.float64, 'float64'), ((129, 8), torch.float32, '129')],
    ids=['dtype', 'channels'],
)
def test_what_the_kernels_cannot_do_is_refused(device, dims, dtype, message):
    with pytest.raises(ValueError, match=message):
        attend_triton(*make_inputs(1, 1, 2, 3, *dims, dtype, device))




def test_cpu_tensors_are_refused_where_kernels_are_compiled():
    code = (
        'import torch; from lesa_mmdet.attention.triton import attend_triton as attend\n'
        'attend(*(torch.zeros(1, 1, 1, n) for n in (4, 4, 8, 1, 1)))'
    )
    environment = {name: x for name, x in os.environ.items() if name != 'TRITON_INTERPRET'}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "ValueError: attention backend 'triton' needs tensors on a CUDA device" in result.stderr
