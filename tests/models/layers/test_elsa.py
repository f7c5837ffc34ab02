import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from lesa_mmdet import ELSA
from lesa_mmdet.attention import NEIGHBORHOOD_BACKENDS
from lesa_mmdet.checkpoints import convert_official
from lesa_mmdet.models.layers.elsa import spread

from helpers.golden import assert_close_to_largest, golden_cases


@pytest.mark.parametrize('backend', ['auto', *NEIGHBORHOOD_BACKENDS])
@pytest.mark.parametrize('case', golden_cases('elsa_attention'))
def test_golden(case, backend):
    arguments = case.info['arguments']
    channels, heads = arguments['dim'], arguments['num_heads']
    operator = ELSA(
        channels,
        channels,
        num_heads=heads,
        kernel_size=arguments['kernel_size'],
        dilation=arguments.get('dilation', 1),
        group_width=arguments['group_width'],
        qkv_bias=arguments['qkv_bias'],
        qk_scale=arguments.get('qk_scale', (channels / heads) ** -0.5),
        lam=arguments['lam'],
        gamma=arguments['gamma'],
        backend=backend,
    )
    assert sum(p.numel() for p in operator.parameters()) == case.info['num_parameters']
    operator.load_state_dict(convert_official(case.state_dict()))
    x = case.image().permute(0, 3, 1, 2).requires_grad_()
    out = operator(x)
    out.backward(case.grad_output(case['output'].shape).permute(0, 3, 1, 2))

    results = dict(output=out, grad_input=x.grad)
    for name, result in results.items():
        assert_close_to_largest(result.permute(0, 2, 3, 1), case[name], 1e-5, name)
    expected = convert_official(case.group('grad/'))
    gradients = {name: p.grad for name, p in operator.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_close_to_largest(gradient, expected[name], 1e-5, name)


def small(**kwargs):
    kwargs = {**dict(num_heads=2, kernel_size=3, group_width=2), **kwargs}
    return ELSA(8, 12, **kwargs)


@pytest.mark.parametrize('size', [(7, 5), (1, 9), (2, 2), (12, 16)])
@pytest.mark.parametrize('kwargs', [dict(), dict(kernel_size=5, dilation=2), dict(kernel_size=1)])
def test_any_map_size(size, kwargs):
    out = small(**kwargs)(torch.randn(2, 8, *size))
    assert out.shape == (2, 12, *size) and out.isfinite().all()


@pytest.mark.parametrize('lam, gamma', [(0, 0), (1, 0), (0, 1), (1, 1), (2, -0.5), (0.5, 3)])
def test_fixed_weights(lam, gamma):
    """``mul ** lam`` times the softmax plus ``gamma * add``, written out."""
    torch.manual_seed(0)
    operator = small(lam=lam, gamma=gamma).double()
    names = {name for name, _ in operator.named_parameters()}
    assert ('mul' in names, 'add' in names) == (bool(lam), bool(gamma))
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    q, k, v = operator.qkv(x).split(operator.splits, 1)
    weights = operator.weights(q, k).repeat_interleave(6, 1)  # channel by channel
    if lam:
        weights = weights * operator.mul.pow(lam).flatten(1)[None, :, :, None, None]
    if gamma:
        weights = weights + gamma * operator.add.flatten(1)[None, :, :, None, None]
    padded = F.pad(v, (1, 1, 1, 1))
    expected = sum(
        weights[:, :, 3 * row + col] * padded[:, :, row : row + 4, col : col + 5]
        for row in range(3)
        for col in range(3)
    )
    torch.testing.assert_close(operator(x), operator.project(expected))


def test_a_fractional_power_starts_positive():
    assert (small(lam=0.5).mul >= 0).all()
    assert (small(lam=2).mul < 0).any()


def test_every_parameter_learns():
    torch.manual_seed(0)
    operator = small(lam=1)
    operator(torch.randn(2, 8, 6, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in operator.parameters())


def test_gradients():
    torch.manual_seed(0)
    operator = small(lam=1, qk_scale=0.7).double()
    x = torch.randn(1, 8, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x)


@pytest.mark.parametrize('channels, width, expected', [(96, 4, 64), (128, 8, 88), (512, 8, 344)])
def test_channels_of_queries_and_keys(channels, width, expected):
    operator = ELSA(channels, channels, num_heads=4, group_width=width)
    assert operator.splits == (expected, expected, channels)


def test_softmax_is_computed_in_float32_under_autocast():
    operator = small()
    x = torch.randn(1, 8, 6, 5, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        q, k, _ = operator.qkv(x).split(operator.splits, 1)
        weights = operator.weights(q, k)
        out = operator(x)
    assert (q.dtype, weights.dtype, out.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    out.float().sum().backward()
    expected = operator(x)
    assert_close_to_largest(out.float(), expected.detach(), 0.03, 'output')
    assert all(p.grad.dtype == torch.float32 for p in operator.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_trains_in_half_precision(dtype):
    operator = small(lam=1).to(dtype)
    out = operator(torch.randn(1, 8, 6, 5, dtype=dtype))
    out.sum().backward()
    assert out.dtype == dtype and out.isfinite().all()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in operator.parameters())


def test_keeps_the_memory_order_of_tokens():
    x = torch.randn(2, 8, 6, 5)
    operator = small()
    out = operator(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, operator(x))


def test_initialization():
    torch.manual_seed(0)
    operator = ELSA(96, 96, num_heads=3, group_width=4, lam=1)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.fill_(float('nan'))
    operator.init_weights()
    assert all(p.isfinite().all() for p in operator.parameters())
    assert operator.mul.std().item() == pytest.approx(1, rel=0.05)
    assert operator.add.std().item() == pytest.approx(0.02, rel=0.05)
    assert operator.project.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not operator.project.bias.any()
    assert operator.qkv.weight.std().item() == pytest.approx((3 * 96) ** -0.5, rel=0.05)


def test_compiles_without_a_break():
    torch.manual_seed(0)
    operator = small(lam=1)
    x = torch.randn(2, 8, 6, 5, requires_grad=True)
    compiled = torch.compile(operator, backend='aot_eager', fullgraph=True)
    results = []
    for function in (operator, compiled):
        x.grad = None
        operator.zero_grad()
        out = function(x)
        out.square().sum().backward()
        results.append([out.detach(), x.grad, *(p.grad.clone() for p in operator.parameters())])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_registered():
    operator = MODELS.build(dict(type='ELSA', in_channels=8, out_channels=16, num_heads=4))
    assert isinstance(operator, ELSA)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_heads=5), 'out_channels has to be a multiple of num_heads = 5, got 12'),
        (dict(num_heads=0), 'num_heads is 0, but has to be a whole number from 1 on'),
        (dict(kernel_size=4), 'kernel_size has to be odd, 1 or more, got 4'),
        (dict(kernel_size=-1), 'kernel_size has to be odd, 1 or more, got -1'),
        (dict(group_width=0), 'group_width has to be 1 or more, got 0'),
        (dict(key_ratio=0.05), 'key_ratio 0.05 leaves no channel of 12'),
        (dict(key_ratio=-1), 'key_ratio -1 leaves no channel of 12'),
        (dict(dilation=0), 'dilation has to be 1 or more, got 0'),
        (dict(backend='fast'), "backend 'fast' is unknown; available: auto, reference, shifted"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small(**kwargs)(torch.randn(1, 8, 4, 4))


def test_dilated_windows_and_small_maps():
    spread_out = spread(torch.arange(9.0)[None], 0, 1, (3, 4), dilation=2)
    assert spread_out.shape == (1, 3, 4)
    expected = torch.zeros(3, 4)
    expected[0, 1], expected[0, 3], expected[2, 1], expected[2, 3] = 4, 5, 7, 8
    assert torch.equal(spread_out[0], expected)
