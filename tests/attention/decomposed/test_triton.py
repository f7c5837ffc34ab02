"""The Triton kernels: through Triton's interpreter, and compiled where there is a GPU."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('triton', reason='Triton is not installed')

from lesa_mmdet.attention.decomposed import triton as decomposed  # noqa: E402
from lesa_mmdet.attention.decomposed.reference import (  # noqa: E402
    attend_reference,
    decomposed_weights,
)
from lesa_mmdet.attention.decomposed.triton import attend_triton  # noqa: E402

from helpers.golden import assert_layer_is_the_authors, golden_cases  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope='module')
def inputs_of(device, make_inputs):
    """Random q, k, v, row and col on the device."""

    def make(*sizes, dtype=torch.float32, **kwargs):
        return [x.detach().to(device) for x in make_inputs(*sizes, dtype=dtype, **kwargs)]

    return make


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

    A weight is off by four times half a unit in the last place of a logit, computed in float32 (its
    two sums, its product with log2(e) and the saved log-sum-exp), and by what the storage type
    leaves: float32 a few units; a 16-bit type half a unit in the weight and half in the result,
    here taken twice.
    """
    results = run(attend_triton, inputs, grad_out)
    exact_inputs = [x.detach().double() for x in (*inputs, grad_out)]
    expected = run(attend_reference, exact_inputs[:5], exact_inputs[5])
    info, single = torch.finfo(inputs[0].dtype), torch.finfo(torch.float32)
    # Of smaller weights no relative precision is left: a float32 exponential of less than `tiny` is
    # zero, a 16-bit type takes them in steps of tiny * eps.
    smallest, units = (info.tiny / info.eps, 4) if info.bits == 32 else (info.tiny, 2)
    sensitive, terms = sensitivities(*exact_inputs, smallest)
    unit = units * info.eps + 2 * single.eps * terms
    for name, result, value, bound in zip(
        ('out', 'q', 'k', 'v', 'row', 'col'), results, expected, sensitive, strict=True
    ):
        assert result.dtype == inputs[0].dtype
        assert result.shape == value.shape
        excess = ((result.double() - value).abs() / (unit * bound)).max()
        assert excess <= 1, f'{name} is {excess:.2f} times as far off as rounding allows'


def random_like_output(inputs):
    generator = torch.Generator().manual_seed(0)
    v = inputs[2]
    return torch.randn(v.shape, generator=generator).to(v)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_gradients_of_position_logits_are_rounded_once(inputs_of, dtype):
    """What they sum is not, nor what is subtracted from it: ``delta``, of the rounded output."""
    inputs = inputs_of(1, 1, 16, 24, 16, 32, dtype=dtype)
    grad_out = random_like_output(inputs)
    out, *_, of_row, of_col = run(attend_triton, inputs, grad_out)
    q, k, v, row, col, grad_out, out = (x.double() for x in (*inputs, grad_out, out))
    weights = decomposed_weights(q, k, row, col)
    grad_logits = weights * (grad_out @ v.mT - (grad_out * out).sum(-1, keepdim=True))
    in_float32 = 1e-5 * weights * (grad_out.abs() @ v.abs().mT)
    for result, dim in ((of_row, -1), (of_col, -2)):
        exact, rest = (x.unflatten(-1, (16, 24)).sum(dim) for x in (grad_logits, in_float32))
        bound = torch.finfo(dtype).eps * exact.abs() + rest + torch.finfo(dtype).tiny
        excess = ((result.double() - exact).abs() / bound).max()
        assert excess <= 1, f'{excess:.2f} times as far off as one rounding allows'


@settings(max_examples=12)
@given(
    batch_and_heads=st.sampled_from([(1, 1), (1, 2), (2, 1)]),
    rows=st.integers(1, 17),
    cols=st.integers(1, 17),
    dims=st.sampled_from([(16, 32), (4, 8), (24, 40), (1, 3)]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape_matches_the_definition(inputs_of, batch_and_heads, rows, cols, dims, dtype):
    inputs = inputs_of(*batch_and_heads, rows, cols, *dims, dtype=dtype)
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
def test_wide_maps_and_wide_heads_match_the_definition(inputs_of, size, dims, dtype):
    inputs = inputs_of(1, 1, *size, *dims, dtype=dtype)
    assert_matches_the_definition(inputs, random_like_output(inputs))


@pytest.mark.parametrize('layout', ['channels', 'places', 'strided'])
@pytest.mark.parametrize('width', [15, 16])
def test_any_strides_match_the_definition(inputs_of, width, layout):
    inputs = inputs_of(1, 2, 4, width, 8, 16, layout=layout)
    grad_out = random_like_output(inputs).permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert_matches_the_definition(inputs, grad_out)


def test_an_expanded_gradient_matches_the_definition(inputs_of):
    inputs = inputs_of(1, 2, 4, 16, 8, 16)
    assert_matches_the_definition(inputs, inputs[2].new_ones(()).expand_as(inputs[2]))


@pytest.mark.parametrize('mode', ['eval', 'train'])
@pytest.mark.parametrize('case', golden_cases('layer_decomposed'))
def test_golden(device, case, mode, monkeypatch):
    if device == 'cpu':  # the interpreter takes a large block as long as a small one
        monkeypatch.setattr(decomposed, 'block_sizes', lambda *args: decomposed.Blocks(64, 64))
    assert_layer_is_the_authors(case, mode, device, backend='triton')


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_extreme_logits_match_the_definition(inputs_of, dtype):
    q, k, v, row, col = inputs_of(1, 1, 5, 19, 16, 32, dtype=dtype)
    inputs = [3 * q, 3 * k, v, 1e4 * row, 3e3 * col]
    assert_matches_the_definition(inputs, random_like_output(inputs))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_logits_of_minus_infinity_have_no_weight(inputs_of, dtype):
    q, k, v, row, col = inputs_of(1, 1, 9, 11, 4, 8, dtype=dtype)
    row[..., :8] = -torch.inf  # a whole tile
    col[:, :, ::3, 5:] = -torch.inf
    inputs, grad_out = [q, k, v, row, col], random_like_output([q, k, v])
    results = run(attend_triton, inputs, grad_out)
    expected = run(attend_reference, [x.double() for x in inputs], grad_out.double())
    tolerance = 16 * torch.finfo(dtype).eps
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result.double(), value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_what_is_not_a_number_is_that_in_the_definition(inputs_of, dtype):
    """A query whose logits are all -inf, and what it is part of."""
    q, k, v, row, col = inputs_of(1, 1, 3, 9, 4, 8, dtype=dtype)
    col[0, 0, 4] = row[0, 0, 7, 1] = -torch.inf
    inputs, grad_out = [q, k, v, row, col], random_like_output([q, k, v])
    results = run(attend_triton, inputs, grad_out)
    expected = run(attend_reference, [x.double() for x in inputs], grad_out.double())
    for result, value in zip(results, expected, strict=True):
        assert value.isnan().any()
        assert torch.equal(result.isnan(), value.isnan())


def test_equal_logits_give_the_mean(inputs_of):
    q, k, v, row, col = inputs_of(1, 1, 3, 11, 16, 32)
    for logit in (0.0, 1e4, -1e4):
        out = attend_triton(torch.zeros_like(q), k, v, torch.full_like(row, logit), 0 * col)
        torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(v))


def test_two_runs_are_bit_equal(inputs_of):
    inputs = inputs_of(1, 2, 3, 40, 16, 32, dtype=torch.float16)
    grad_out = random_like_output(inputs)
    for first, second in zip(
        *(run(attend_triton, inputs, grad_out) for _ in range(2)), strict=True
    ):
        assert torch.equal(first, second)


def test_empty_batch_gives_empty_results(inputs_of):
    inputs = inputs_of(0, 2, 3, 5, 8, 16)
    out, *grads = run(attend_triton, inputs, torch.empty_like(inputs[2]))
    assert out.shape == inputs[2].shape
    assert [grad.shape for grad in grads] == [x.shape for x in inputs]


def test_output_lies_channel_by_channel(inputs_of):
    out = attend_triton(*inputs_of(1, 2, 3, 5, 8, 16))
    assert out.transpose(-1, -2).is_contiguous()


def test_compiles_as_one_operation(inputs_of):
    inputs = [x.detach().requires_grad_() for x in inputs_of(2, 1, 3, 4, 4, 8)]
    operators = torch.ops.lesa_mmdet
    torch.library.opcheck(operators.attend_triton, inputs)
    results = operators.attend_triton(*inputs)
    tensors = [x.detach() for x in (results[0], *inputs, *results)]
    torch.library.opcheck(operators.attend_triton_backward, (*tensors, [True] * 5))


def test_other_derivatives_are_refused(inputs_of):
    inputs = [x.detach().requires_grad_() for x in inputs_of(1, 1, 2, 3, 4, 8)]
    (grad,) = torch.autograd.grad(attend_triton(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="'triton' can be differentiated once"):
        grad.sum().backward()
    with pytest.raises(NotImplementedError, match="'triton' has no derivative in forward mode"):
        torch.func.jvp(attend_triton, tuple(inputs), tuple(inputs))


def test_functional_derivatives_of_each_image_are_those_of_the_reference(inputs_of):
    inputs = inputs_of(2, 1, 3, 5, 4, 8)

    def gradients(attend):
        def sum_of_squares(*image):
            return attend(*(x[None] for x in image)).square().sum()

        return torch.func.vmap(torch.func.grad(sum_of_squares, argnums=(0, 1, 2, 3, 4)))(*inputs)

    torch.testing.assert_close(
        gradients(attend_triton), gradients(attend_reference), atol=1e-4, rtol=1e-4
    )
