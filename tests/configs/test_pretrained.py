"""Pre-trained backbones fit the configs that name them."""

import pytest
import torch
from mmdet.registry import MODELS

import lesa_mmdet  # noqa: F401

from helpers.configs import NAMES, SWINS, load, shrink


def torchvision_shapes(width):
    """Names and shapes of torchvision's resnet50 (inner width 64) or wide_resnet50_2 (128)."""
    convs, channels = {'conv1': (64, 3, 7, 7)}, 64
    norms = {'bn1': 64}
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, outer = width * 2**stage, 256 * 2**stage
        for block in range(blocks):
            name = f'layer{stage + 1}.{block}'
            convs[f'{name}.conv1'] = (inner, channels, 1, 1)
            convs[f'{name}.conv2'] = (inner, inner, 3, 3)
            convs[f'{name}.conv3'] = (outer, inner, 1, 1)
            norms.update({f'{name}.bn1': inner, f'{name}.bn2': inner, f'{name}.bn3': outer})
            if block == 0:
                convs[f'{name}.downsample.0'] = (outer, channels, 1, 1)
                norms[f'{name}.downsample.1'] = outer
            channels = outer
    shapes = {f'{name}.weight': shape for name, shape in convs.items()}
    for name, length in norms.items():
        for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
            shapes[f'{name}.{leaf}'] = (length,)
        shapes[f'{name}.num_batches_tracked'] = ()
    return {**shapes, 'fc.weight': (1000, 2048), 'fc.bias': (1000,)}


@pytest.mark.parametrize('kind, width', [('LESA_ResNet', 64), ('LESA_WRN', 128)])
def test_convolution_backbones_have_torchvisions_names_and_shapes(kind, width):
    with torch.device('meta'):
        backbone = MODELS.build(dict(type=kind, depth=50, operator=None))
    shapes = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    expected = torchvision_shapes(width)
    assert sum(torch.Size(s).numel() for key, s in expected.items() if 'running' not in key) > 25e6
    assert {**shapes, 'fc.weight': (1000, 2048), 'fc.bias': (1000,)} == expected


@pytest.mark.parametrize('name', [name for name in NAMES if name.endswith('from-resnet')])
def test_from_resnet_config_takes_a_plain_resnets_file(name, tmp_path):
    cfg = shrink(load(name)).model.backbone
    torch.manual_seed(0)
    given = MODELS.build(dict(cfg, operator=None, init_cfg=None)).state_dict()
    path = str(tmp_path / 'plain.pth')
    torch.save({**given, 'fc.weight': torch.zeros(1000, 256)}, path)
    backbone = MODELS.build(dict(cfg, init_cfg=dict(type='Pretrained', checkpoint=path)))
    backbone.init_weights()
    own = backbone.state_dict()
    assert all(torch.equal(own[key], given[key]) for key in given if key in own)
    for block in (backbone.layer3[1], backbone.layer4[0]):
        assert not block.conv2.context.output_norm.weight.any()


@pytest.mark.parametrize('name', [name for name in NAMES if 'coco' in name and name not in SWINS])
def test_imagenet_backbone_loads(name, tmp_path):
    cfg = shrink(load(name)).model.backbone
    pretrained = dict(cfg, stage_with_dcn=(False,) * 4, dcn=None)
    if cfg.get('operator', True):
        operator = dict(cfg.get('operator') or dict(type='LESA'), position='flattened')
        pretrained.update(operator=operator, strides=(1, 2, 2, 1), input_size=(224, 224))
    torch.manual_seed(0)
    pretrained = MODELS.build(pretrained)
    state = {**pretrained.state_dict(), 'fc.weight': torch.zeros(1000, 256)}
    path = str(tmp_path / 'imagenet.pth')
    torch.save({'net': {f'module.{key}': value for key, value in state.items()}}, path)
    backbone = MODELS.build(dict(cfg, init_cfg=dict(type='Pretrained', checkpoint=path)))
    backbone.init_weights()
    loaded = backbone.state_dict()
    for key, value in state.items():
        if key in loaded and loaded[key].shape == value.shape:
            assert torch.equal(loaded[key], value), key
    fresh = {key for key in loaded if key not in state}
    positions = {key for key in fresh if key.endswith(('context.height', 'context.width'))}
    offsets = {key for key in fresh if '.conv_offset.' in key}
    assert fresh == positions | offsets
    assert bool(offsets) == bool(cfg.get('dcn'))
    assert not any(loaded[key].any() for key in offsets)  # plain convolutions at first
