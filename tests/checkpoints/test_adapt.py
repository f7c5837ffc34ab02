import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint

from lesa_mmdet import LESA_WRN, LESA_ResNet
from lesa_mmdet.attention import fit_table
from lesa_mmdet.checkpoints import convert_official

from helpers.golden import assert_close_to_largest, golden_cases

OFFICIAL = {
    'context.height': 'rel_height',
    'context.width': 'rel_width',
    'context.relative': 'relative',
    'context.qkv.': 'qkv_transform.',
    'context.qkv_norm': 'bn_qkv',
    'context.similarity_norm': 'bn_similarity',
    'context.output_norm': 'bn_output',
    'local.conv.': 'x_transform.0.',
    'local.project': 'x_transform.1',
    'local.norm': 'bn_x',
    'fusion.conv1': 'reasoning.1',
    'fusion.norm1': 'reasoning.2',
    'fusion.conv2': 'projection.0',
    'fusion.norm2': 'projection.1',
}


def tiny(kind=LESA_ResNet, position='decomposed', **kwargs):
    operator = dict(type='LESA', num_heads=4, position=position)
    kwargs = {**dict(depth=50, base_channels=8, input_size=(64, 64)), **kwargs}
    return kind(operator=operator, **kwargs)


def randomized_state(module, prefix=''):
    generator = torch.Generator().manual_seed(0)
    return {
        prefix + key: torch.rand(value.shape, generator=generator) + 0.5
        for key, value in module.state_dict().items()
    }


def official(state_dict):
    """Our state dict under the authors' names."""
    renamed = {}
    for key, value in state_dict.items():
        if key.endswith('context.qkv.weight'):
            value = value.squeeze(-1)
        for ours, theirs in OFFICIAL.items():
            key = key.replace(ours, theirs)
        renamed[key] = value
    return renamed


@pytest.mark.parametrize('prefix, kept', [('', ''), ('module.', ''), ('backbone.', 'backbone.')])
@pytest.mark.parametrize('kind', [LESA_ResNet, LESA_WRN])
def test_conversion_whatever_the_prefix(prefix, kept, kind):
    state = randomized_state(tiny(kind))
    given = {prefix + key: value for key, value in official(state).items()}
    converted = convert_official(given)
    assert list(converted) == [kept + key for key in state]
    assert all(torch.equal(converted[kept + key], state[key]) for key in state)
    assert convert_official(converted).keys() == converted.keys()


@pytest.mark.parametrize('case', golden_cases('backbone') + golden_cases('classifier'))
def test_golden_names_are_all_known(case):
    dcn = dict(type='DCN', deform_groups=1) if case.info.get('dcn') else None
    backbone = (LESA_WRN if case.info['wrn'] else LESA_ResNet)(
        depth=50,
        operator=dict(
            type='LESA', position='flattened' if 'pe_type' in case.info else 'decomposed'
        ),
        dcn=dcn,
        stage_with_dcn=(False, *[dcn is not None] * 3),
        input_size=case.info['input_shape'][-2:],
        strides=case.info['strides'],
    )
    converted = {k: v for k, v in convert_official(case.state_dict()).items() if k[:3] != 'fc.'}
    own = backbone.state_dict()
    assert converted.keys() == own.keys()
    assert all(converted[key].shape == own[key].shape for key in own)


@pytest.mark.parametrize('case', golden_cases('backbone'))
def test_golden_file_is_a_pretrained_checkpoint(case, tmp_path):
    """The authors' ImageNet file, as it is, in init_cfg."""
    net = {f'module.{key}': value for key, value in case.state_dict().items()}
    net.update({'module.fc.weight': torch.zeros(10, 2048), 'module.fc.bias': torch.zeros(10)})
    torch.save({'net': net, 'optim': {'lr': 0.05}, 'epoch': 94}, tmp_path / 'official.pth')
    dcn = dict(type='DCN', deform_groups=1) if case.info['dcn'] else None
    backbone = (LESA_WRN if case.info['wrn'] else LESA_ResNet)(
        depth=50,
        dcn=dcn,
        stage_with_dcn=(False, *[dcn is not None] * 3),
        input_size=case.info['input_shape'][-2:],
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'official.pth')),
    )
    backbone.init_weights()
    backbone.eval()
    with torch.no_grad():
        out = backbone(case.image())[-1]
    assert_close_to_largest(out, case['c5'], 1e-3, 'c5')


def test_flattened_positions_start_fresh_in_a_detection_backbone(told, tmp_path):
    source = tiny(position='flattened', strides=(1, 2, 2, 1))
    state = randomized_state(source)
    torch.save({'net': official(state), 'epoch': 94}, tmp_path / 'official.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'official.pth'))
    backbone = tiny(init_cfg=init_cfg)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    after = backbone.state_dict()
    heads = 4
    for key, value in after.items():
        if key.endswith(('context.height', 'context.width')):
            assert 0 < value.std() < 2 * value.shape[1] ** -0.5
        elif 'similarity_norm' in key and value.dim():
            assert torch.equal(value[:heads], state[key][:heads])
            assert torch.equal(value[heads:], before[key][heads:])
        elif 'output_norm' in key and value.dim():
            assert torch.equal(value, state[key][0::2])
        elif value.is_floating_point():
            assert torch.equal(value, state[key]), key
    assert [line for line in told if line[:1].isdigit()] == [
        '16 position tables start fresh: the checkpoint has none of this kind.',
        '8 similarity norms keep their content part; positions start fresh.',
        '8 output norms keep the half that belongs to the values.',
    ]


@pytest.mark.parametrize('size', [(32, 64), (96, 128)])
def test_tables_of_another_size_are_fitted(size, told):
    state = randomized_state(tiny())
    backbone = tiny(input_size=size)
    backbone.load_state_dict(official(state))
    for key, value in backbone.state_dict().items():
        if key.endswith(('context.height', 'context.width')):
            expected = fit_table(state[key], (len(value) + 1) // 2)
            torch.testing.assert_close(value, expected)
        elif value.is_floating_point():
            assert torch.equal(value, state[key])
    fitted = 8 if size == (32, 64) else 16
    assert f'{fitted} position tables are fitted to the map sizes of this backbone.' in told


def test_deformable_convolutions_start_as_the_plain_ones(told):
    plain = tiny(input_size=(96, 96))
    deformable = tiny(
        input_size=(96, 96),
        dcn=dict(type='DCN', deform_groups=1),
        stage_with_dcn=(False, True, True, True),
    )
    deformable.load_state_dict(official(plain.state_dict()))
    plain.eval(), deformable.eval()
    image = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(deformable(image)[-1], plain(image)[-1], atol=1e-4, rtol=1e-4)
    offsets = 2 * (4 + 6 + 3)  # weight and bias in each block of stages 2 to 4
    assert f'{offsets} offset parameters start fresh: the checkpoint has none.' in told

    state = deformable.state_dict()
    del state['layer2.0.conv2.conv_offset.bias']
    with pytest.raises(ValueError, match=r'1 missing \(layer2.0.conv2.conv_offset.bias\)'):
        deformable.load_state_dict(state)


def test_detector_file_loads_as_it_is(tmp_path):
    """The layout of mmdet 2.x: meta, state_dict and optimizer; other keys as in mmdet 3.x."""
    detector = MODELS.build(detector_cfg())
    state = randomized_state(detector)
    torch.save(
        {'meta': {'epoch': 20}, 'state_dict': official(state), 'optimizer': {}},
        tmp_path / 'official.pth',
    )
    load_checkpoint(detector, str(tmp_path / 'official.pth'))
    for key, value in detector.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, state[key]), key


def detector_cfg():
    """A RetinaNet: a backbone with a prefix, and keys that are not the backbone's."""
    return dict(
        type='RetinaNet',
        backbone=dict(
            type='LESA_ResNet',
            depth=50,
            base_channels=8,
            input_size=(64, 64),
            operator=dict(type='LESA', num_heads=4),
        ),
        neck=dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=8, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[4, 8, 16, 32, 64]
            ),
        ),
    )


class TestStrict:
    def test_names_what_is_missing_unexpected_and_of_another_shape(self):
        backbone = tiny()
        state = official(randomized_state(backbone))
        for index in range(3):
            del state[f'layer2.{index}.conv1.weight']
            for leaf in 'abc':
                state[f'layer5.{index}.{leaf}'] = torch.zeros(1)
        state['conv1.weight'] = torch.zeros(64, 3, 7, 7)
        with pytest.raises(ValueError) as error:
            backbone.load_state_dict(state)
        message = str(error.value)
        assert message.startswith('the checkpoint does not fit LESA_ResNet, keys: 3 missing (layer')
        assert '9 unexpected (layer5.0.a, layer5.0.b, layer5.0.c, layer5.1.a, layer5.1.b, ...)' in (
            message
        )
        assert '1 of another shape (conv1.weight (64, 3, 7, 7) instead of (8, 3, 7, 7))' in message

    def test_other_position_and_classifier_keys_are_no_problem(self):
        backbone = tiny()
        state = official(randomized_state(backbone))
        state['fc.weight'] = torch.zeros(10, 10)
        del state['layer4.1.conv2.rel_height']
        backbone.load_state_dict(state)

    def test_convolution_weights_do_not_pass_for_lesa(self):
        with pytest.raises(ValueError, match='missing .* unexpected'):
            tiny().load_state_dict(LESA_ResNet(50, base_channels=8, operator=None).state_dict())

    def test_inside_a_detector(self):
        detector = MODELS.build(detector_cfg())
        state = detector.state_dict()
        del state['backbone.layer1.0.conv1.weight']
        with pytest.raises(ValueError, match=r'1 missing \(layer1.0.conv1.weight\)'):
            detector.load_state_dict(state)

    def test_wrong_pretrained_file(self, tmp_path):
        torch.save({'state_dict': {'model.stem.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth'))
        with pytest.raises(ValueError, match=r'1 unexpected \(model.stem.weight\)'):
            tiny(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('state', [{}, {'other.weight': torch.zeros(1)}])
def test_what_is_not_a_backbones_is_left_to_torch_if_not_strict(state):
    backbone = tiny()
    keys = backbone.load_state_dict(dict(state), strict=False)
    assert {name for name, _ in backbone.named_parameters()} <= set(keys.missing_keys)
    assert keys.unexpected_keys == list(state)
    with pytest.raises(ValueError, match='the checkpoint does not fit LESA_ResNet'):
        backbone.load_state_dict(dict(state))
