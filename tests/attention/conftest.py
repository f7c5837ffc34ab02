import pytest
import torch

from lesa_mmdet.attention.support import HAS_TRITON, INTERPRETED

from patches import PLAIN

if HAS_TRITON and INTERPRETED and not PLAIN:
    import patches.quick_triton  # noqa: F401


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
    """Where Triton's kernels run: interpreted on a CPU, or compiled on a GPU."""
    return request.param


@pytest.fixture(scope='session')
def make_inputs():
    """Random q, k, v, row and col that require gradients."""

    def make(batch, heads, rows, cols, d, dv, dtype=torch.float64, layout='channels', seed=0):
        generator = torch.Generator().manual_seed(seed)
        places = rows * cols
        if layout == 'channels':  # channel by channel, as the views of a map are
            qkv = torch.randn(batch, heads, 2 * d + dv, places, generator=generator).mT
        elif layout == 'places':  # place by place, as the views of a channels_last map are
            qkv = torch.randn(batch, places, heads, 2 * d + dv, generator=generator).transpose(1, 2)
        else:  # every second number of a larger tensor
            qkv = torch.randn(batch, heads, places, 4 * d + 2 * dv, generator=generator)[..., ::2]
        row = torch.randn(batch, heads, places, rows, generator=generator)
        col = torch.randn(batch, heads, places, cols, generator=generator)
        return [x.to(dtype).requires_grad_() for x in (*qkv.split((d, d, dv), -1), row, col)]

    return make


@pytest.fixture(scope='session')
def differentiate():
    """Output and all gradients of a function of tensors, for a fixed random gradient of it."""

    def run(function, inputs):
        inputs = [x.detach().requires_grad_() for x in inputs]
        out = function(*inputs)
        generator = torch.Generator().manual_seed(1)
        grad_out = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        return out.detach(), *torch.autograd.grad(out, inputs, grad_out.to(out.dtype))

    return run


@pytest.fixture(scope='session')
def assert_close():
    """Compare results with those in float64, by name, relative to the largest magnitude or 1."""

    def check(actual, expected, tolerance, names=('output', 'q', 'k', 'v', 'row', 'col')):
        assert len(actual) == len(expected) == len(names)
        for name, x, y in zip(names, actual, expected, strict=True):
            assert x.shape == y.shape, name
            if y.numel():
                error = (x.double() - y).abs().max() / y.abs().max().clamp(min=1)
                assert error <= tolerance, f'{name} is off by {error:.1e} > {tolerance:.0e}'

    return check
