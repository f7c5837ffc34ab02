"""Attention augmentation against a naive computation, position by position."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from torch import nn

from lesa_mmdet import AugmentedAttention, LESA_ResNet
from lesa_mmdet.attention import BACKENDS

from helpers.modules import randomized


def make(channels=16, size=(4, 5), num_heads=2, **kwargs):
    return AugmentedAttention(channels, channels, feat_size=size, num_heads=num_heads, **kwargs)


def naive(operator, x):
    """The definition (Bello et al. 2019, equations 1 to 4), one head and one position at a time."""
    context = operator.context
    heads, d, dv = context.num_heads, context.key_dim, context.value_dim
    batch, _, rows, cols = x.shape
    qkv = F.conv2d(x, context.qkv.weight).view(batch, heads, 2 * d + dv, rows, cols)
    images = []
    for image in qkv:
        channels = []
        for q, k, v in (head.split((d, d, dv)) for head in image):
            attended = torch.empty(dv, rows, cols, dtype=x.dtype)
            for i in range(rows):
                for j in range(cols):
                    logits = torch.stack(
                        [
                            q[:, i, j]
                            @ (
                                k[:, a, b]
                                + context.height[a - i + rows - 1]
                                + context.width[b - j + cols - 1]
                            )
                            / d**0.5
                            for a in range(rows)
                            for b in range(cols)
                        ]
                    )
                    attended[:, i, j] = v.flatten(1) @ logits.softmax(0)
            channels.append(attended)
        images.append(torch.cat(channels))
    attention = F.conv2d(torch.stack(images), operator.project.weight)
    return torch.cat((F.conv2d(x, operator.conv.weight, padding=1), attention), dim=1)


@settings(max_examples=10)
@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 5),
    num_heads=st.sampled_from([1, 2, 4]),
    key_ratio=st.sampled_from([0.1, 0.4, 1.0]),
    value_ratio=st.sampled_from([0.1, 0.5]),
    backend=st.sampled_from(['auto', *BACKENDS]),
)
def test_is_the_definition(rows, cols, num_heads, key_ratio, value_ratio, backend):
    torch.manual_seed(0)
    operator = make(
        size=(rows, cols),
        num_heads=num_heads,
        key_ratio=key_ratio,
        value_ratio=value_ratio,
        backend=backend,
    )
    randomized(operator.double(), std=0.5)
    x = torch.randn(2, 16, rows, cols, dtype=torch.float64)
    out, expected = operator(x), naive(operator, x)
    torch.testing.assert_close(out, expected)
    grad_out = torch.randn_like(out)
    parameters = list(operator.parameters())
    actual = torch.autograd.grad(out, parameters, grad_out)
    torch.testing.assert_close(actual, torch.autograd.grad(expected, parameters, grad_out))
    assert all(grad.any() for grad in actual) or rows * cols == 1


@pytest.mark.parametrize(
    'size, dcn',
    [((1, 9), None), ((7, 5), None), ((12, 16), None), ((7, 5), dict(type='DCN', deform_groups=1))],
)
def test_any_map_keeps_its_size(size, dcn):
    out = make(dcn=dcn)(torch.randn(2, 16, *size))
    assert out.shape == (2, 16, *size)
    assert out.isfinite().all()


def test_dilation_is_that_of_the_convolution():
    torch.manual_seed(0)
    plain, dilated = make(), make(dilation=2)
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 16, 6, 6)
    channels = plain.conv.out_channels
    expected = F.conv2d(x, plain.conv.weight, padding=2, dilation=2)
    torch.testing.assert_close(dilated(x)[:, :channels], expected)
    torch.testing.assert_close(dilated(x)[:, channels:], plain(x)[:, channels:])


@pytest.mark.parametrize('dcn_type', ['DCN', 'DCNv2'])
def test_a_deformable_convolution_starts_as_a_plain_one(dcn_type):
    torch.manual_seed(0)
    operator = make(dcn=dict(type=dcn_type, deform_groups=1, fallback_on_stride=False))
    nn.init.normal_(operator.conv.conv_offset.weight)
    operator.init_weights()
    x = torch.randn(2, 16, 6, 6)
    # DCNv2 multiplies by sigmoid(0) = 1 / 2.
    factor = 0.5 if dcn_type == 'DCNv2' else 1.0
    expected = factor * F.conv2d(x, operator.conv.weight, padding=1)
    torch.testing.assert_close(operator.conv(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    'channels, num_heads, key_channels, value_channels',
    [(256, 8, 48, 24), (512, 8, 104, 48), (1024, 8, 208, 104), (32, 4, 8, 4), (32, 8, 8, 8)],
)
def test_ratios_are_rounded_to_multiples_of_the_heads(
    channels, num_heads, key_channels, value_channels
):
    operator = make(channels, num_heads=num_heads)
    assert operator.conv.out_channels == channels - value_channels
    assert operator.project.out_channels == value_channels
    assert operator.context.qkv.out_channels == 2 * key_channels + value_channels
    assert operator(torch.randn(1, channels, 3, 3)).shape == (1, channels, 3, 3)


def test_resnet50_has_the_parameters_of_the_paper():
    with torch.device('meta'):
        backbone = LESA_ResNet(
            50,
            operator=dict(type='AugmentedAttention'),
            strides=(1, 2, 2, 1),
            input_size=(224, 224),
        )
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    assert abs(parameters + 2048 * 1000 + 1000 - 25.15e6) < 0.1e6
    blocks = [*list(backbone.layer3)[1:], *backbone.layer4]
    assert len(blocks) == 8
    for block in blocks:
        assert isinstance(block.conv2, AugmentedAttention)
        assert isinstance(block.bn2, nn.BatchNorm2d)
    assert not isinstance(backbone.layer3[0].conv2, AugmentedAttention)


def test_every_parameter_of_a_backbone_trains():
    torch.manual_seed(0)
    backbone = LESA_ResNet(
        50,
        base_channels=8,
        operator=dict(type='AugmentedAttention', num_heads=4),
        input_size=(64, 64),
        zero_init_residual=False,
        dcn=dict(type='DCN', deform_groups=1),
        stage_with_dcn=(False, False, True, True),
    )
    backbone.init_weights()
    sum(x.square().mean() for x in backbone(torch.randn(2, 3, 96, 128))).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_registered():
    cfg = dict(type='AugmentedAttention', in_channels=16, out_channels=16, feat_size=(4, 4))
    assert isinstance(MODELS.build(dict(cfg, num_heads=4)), AugmentedAttention)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(key_ratio=0), 'key_ratio and value_ratio have to be positive, got 0 and 0.1'),
        (dict(value_ratio=-1), 'have to be positive, got 0.2 and -1'),
        (dict(value_ratio=1), 'value_ratio 1 leaves the convolution none of 16 output channels: 2'),
        (dict(num_heads=16), 'value_ratio 0.1 leaves .* 16 output channels: 16 heads of 1 channel'),
        (dict(backend='fast'), "backend 'fast' is unknown; available: auto, reference, chunked"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)(torch.randn(1, 16, 4, 5))
