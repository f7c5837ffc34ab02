import pytest
import torch
from mmdet.registry import MODELS

from lesa_mmdet import LESA, SelfAttention
from lesa_mmdet.attention import BACKENDS

from helpers.golden import assert_layer_is_the_authors, golden_cases
from helpers.modules import randomized


@pytest.mark.parametrize('backend', ['auto', *BACKENDS])
@pytest.mark.parametrize('mode', ['eval', 'train'])
@pytest.mark.parametrize('case', golden_cases('layer_decomposed'))
def test_golden_decomposed(case, mode, backend):
    assert_layer_is_the_authors(case, mode, backend=backend)


@pytest.mark.parametrize('mode', ['eval', 'train'])
@pytest.mark.parametrize('case', golden_cases('layer_flattened'))
def test_golden_flattened(case, mode):
    assert_layer_is_the_authors(case, mode, position='flattened')


@pytest.mark.parametrize('kind', [LESA, SelfAttention])
@pytest.mark.parametrize('size', [(7, 5), (1, 9), (12, 16)])
def test_any_map_keeps_its_size(kind, size):
    operator = kind(16, 32, feat_size=(6, 8), num_heads=4).eval()
    out = operator(torch.randn(2, 16, *size))
    assert out.shape == (2, 32, *size)
    assert out.isfinite().all()


def test_smaller_map_is_exact():
    """A table for a larger map gives what the centre of the table gives on a smaller one."""
    torch.manual_seed(0)
    large = randomized(LESA(16, 16, feat_size=(9, 7), num_heads=4)).eval()
    small = LESA(16, 16, feat_size=(5, 6), num_heads=4).eval()
    state = large.state_dict()
    state['context.height'] = state['context.height'][4:-4]
    state['context.width'] = state['context.width'][1:-1]
    small.load_state_dict(state)
    x = torch.randn(2, 16, 5, 6)
    torch.testing.assert_close(large(x), small(x))


def test_static_fusion_adds_the_terms():
    torch.manual_seed(0)
    operator = randomized(LESA(16, 16, feat_size=(4, 4), num_heads=4, fusion='static')).eval()
    x = torch.randn(2, 16, 4, 4)
    assert operator.fusion is None
    torch.testing.assert_close(operator(x), operator.local(x) + operator.context(x))


def test_dynamic_fusion_weighs_the_context():
    torch.manual_seed(0)
    operator = randomized(LESA(16, 16, feat_size=(4, 4), num_heads=4)).eval()
    x = torch.randn(2, 16, 4, 4)
    local, context = operator.local(x), operator.context(x)
    omega = (operator(x) - local) / context
    torch.testing.assert_close(omega, operator.fusion(local, context), atol=1e-4, rtol=1e-3)
    assert ((omega > 0) & (omega < 1)).all()


def test_self_attention_is_the_context_term():
    torch.manual_seed(0)
    attention = randomized(SelfAttention(16, 16, feat_size=(4, 4), num_heads=4)).eval()
    lesa = LESA(16, 16, feat_size=(4, 4), num_heads=4).eval()
    lesa.load_state_dict(attention.state_dict(), strict=False)
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(attention(x), lesa.context(x))


@pytest.mark.parametrize('dcn_type', ['DCN', 'DCNv2'])
def test_deformable_local_term_starts_as_plain_convolution(dcn_type):
    torch.manual_seed(0)
    dcn = dict(type=dcn_type, deform_groups=1, fallback_on_stride=False)
    deformable = LESA(16, 16, feat_size=(6, 6), num_heads=4, dcn=dcn)
    torch.nn.init.normal_(deformable.local.conv.conv_offset.weight)
    deformable.init_weights()
    deformable.eval()
    plain = LESA(16, 16, feat_size=(6, 6), num_heads=4).eval()
    missing, unexpected = plain.load_state_dict(deformable.state_dict(), strict=False)
    assert not missing and all('conv_offset' in key for key in unexpected)
    x = torch.randn(2, 16, 6, 6)
    # DCNv2 multiplies by sigmoid(0) = 1 / 2, which the norm's statistics do not undo in eval mode.
    factor = 0.5 if dcn_type == 'DCNv2' else 1.0
    torch.testing.assert_close(
        deformable.local.conv(x), factor * plain.local.conv(x), atol=1e-5, rtol=1e-4
    )


def test_initialization():
    torch.manual_seed(0)
    operator = LESA(256, 256, feat_size=(64, 64))
    operator.init_weights()
    context = operator.context
    assert context.qkv.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert context.height.shape == context.width.shape == (127, 16)
    assert context.height.std().item() == pytest.approx(16**-0.5, rel=0.1)
    flattened = LESA(256, 256, feat_size=(14, 14), position='flattened').context
    assert flattened.relative.shape == (64, 391)
    assert flattened.relative.std().item() == pytest.approx(32**-0.5, rel=0.02)


def test_registered():
    cfg = dict(type='LESA', in_channels=16, out_channels=16, feat_size=(4, 4), num_heads=4)
    assert isinstance(MODELS.build(cfg), LESA)
    assert isinstance(MODELS.build({**cfg, 'type': 'SelfAttention'}), SelfAttention)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(out_channels=24), r'multiple of 2 \* num_heads = 16 .* got 24'),
        (dict(in_channels=20), r'multiples of num_heads = 8, got 20 and 32'),
        (dict(position='absolute'), "position 'absolute' is unknown; available: 'decomposed', 'fl"),
        (dict(fusion='gated'), "fusion 'gated' is unknown; available: 'dynamic', 'static'"),
        (dict(norm_cfg=dict(type='GN', num_groups=4)), "need a batch norm .* got 'GN'"),
        (dict(backend='fast'), "backend 'fast' is unknown; available: auto, reference, chunked"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        operator = LESA(**{**dict(in_channels=32, out_channels=32, feat_size=(4, 4)), **kwargs})
        operator(torch.randn(1, 32, 4, 4))


def test_flattened_positions_refuse_another_map():
    operator = LESA(32, 32, feat_size=(4, 4), position='flattened')
    with pytest.raises(ValueError, match=r'built for a map of \(4, 4\), got \(4, 5\)'):
        operator(torch.randn(1, 32, 4, 5))
