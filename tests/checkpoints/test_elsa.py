"""The checkpoints of ELSA's authors."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint

from lesa_mmdet import ELSA_Swin, LESA_ResNet
from lesa_mmdet.checkpoints import convert_official

from helpers.golden import assert_close_to_largest, golden_cases
from helpers.paths import ROOT

SIZES = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))


def tiny(**kwargs):
    return ELSA_Swin(operator=dict(type='ELSA', group_width=2), **SIZES, **kwargs)


def official_shapes(embed_dims=8, group_width=2, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8)):
    """Names and shapes in the authors' files, of a backbone without its output norms."""
    shapes = {
        'patch_embed.proj.weight': (embed_dims, 3, 4, 4),
        'patch_embed.proj.bias': (embed_dims,),
        'patch_embed.norm.weight': (embed_dims,),
        'patch_embed.norm.bias': (embed_dims,),
    }
    for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        dim = embed_dims * 2**stage
        keys = -(-(dim // 3 * 2) // group_width) * group_width
        for index in range(depth):
            block = f'layers.{stage}.blocks.{index}.'
            if stage < 3:
                attention = {
                    'ghost_head': (1, dim, 7, 7),
                    'pre_proj.weight': (2 * keys + dim, dim, 1, 1),
                    'pre_proj.bias': (2 * keys + dim,),
                    'attn.0.weight': (keys, group_width, 7, 7),
                    'attn.0.bias': (keys,),
                    'attn.2.weight': (49 * heads, keys, 1, 1),
                    'attn.2.bias': (49 * heads,),
                }
            else:
                attention = {
                    'rb': (heads, 169),
                    'relative_id': (2401,),
                    'attn_mask': (4, 49, 49),
                    'pre_proj.weight': (3 * dim, dim),
                    'pre_proj.bias': (3 * dim,),
                }
            attention.update({'post_proj.weight': (dim, dim), 'post_proj.bias': (dim,)})
            shapes.update({f'{block}attn.{name}': shape for name, shape in attention.items()})
            for name, shape in {
                'norm1.weight': (dim,),
                'norm1.bias': (dim,),
                'norm2.weight': (dim,),
                'norm2.bias': (dim,),
                'mlp.fc1.weight': (4 * dim, dim),
                'mlp.fc1.bias': (4 * dim,),
                'mlp.fc2.weight': (dim, 4 * dim),
                'mlp.fc2.bias': (dim,),
            }.items():
                shapes[block + name] = shape
        if stage < 3:
            shapes[f'layers.{stage}.downsample.reduction.weight'] = (2 * dim, 4 * dim)
            shapes[f'layers.{stage}.downsample.norm.weight'] = (4 * dim,)
            shapes[f'layers.{stage}.downsample.norm.bias'] = (4 * dim,)
    return shapes


def official(kind):
    """A random state dict of the authors' classifier or detection backbone."""
    generator = torch.Generator().manual_seed(0)
    shapes = official_shapes()
    if kind == 'classifier':
        shapes.update({'norm.weight': (64,), 'norm.bias': (64,)})
        shapes.update({'head.weight': (10, 64), 'head.bias': (10,)})
    else:
        for stage in range(4):
            shapes.update({f'norm{stage}.{leaf}': (8 * 2**stage,) for leaf in ('weight', 'bias')})
    return {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}


@pytest.mark.parametrize('prefix, kept', [('', ''), ('module.', ''), ('backbone.', 'backbone.')])
def test_conversion_whatever_the_prefix(prefix, kept):
    given = official('detector')
    converted = convert_official({prefix + key: value for key, value in given.items()})
    own = {kept + key for key in tiny().state_dict() if not key.endswith('relative_position_index')}
    assert converted.keys() == own
    # Nothing but constants is lost, and conversion may be repeated.
    lost = {'relative_id', 'attn_mask'}
    values = [value.sum().item() for key, value in given.items() if key.split('.')[-1] not in lost]
    assert sorted(x.sum().item() for x in converted.values()) == pytest.approx(sorted(values))
    again = convert_official(converted)
    assert all(again[key] is value for key, value in converted.items())


@pytest.mark.parametrize('case', golden_cases('elsa_swin') + golden_cases('elsa_classifier'))
def test_golden_names_are_all_known(case):
    converted = convert_official(case.state_dict())
    own = {key for key in ELSA_Swin().state_dict() if 'relative_position_index' not in key}
    if case.info['kind'] == 'elsa_classifier':
        own -= {f'norm{stage}.{leaf}' for stage in range(4) for leaf in ('weight', 'bias')}
        own |= {'norm.weight', 'norm.bias', 'fc.weight', 'fc.bias'}
    assert converted.keys() == own


@pytest.mark.parametrize('case', golden_cases('elsa_swin'))
def test_golden_file_of_a_detector(case, tmp_path):
    """The authors' detector file, as it is, in init_cfg."""
    state = {f'backbone.{key}': value for key, value in case.state_dict().items()}
    state['neck.lateral_convs.0.conv.weight'] = torch.zeros(256, 96, 1, 1)
    torch.save({'meta': {}, 'state_dict': state, 'optimizer': {}}, tmp_path / 'elsa.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'elsa.pth'), prefix='backbone.')
    backbone = ELSA_Swin(init_cfg=init_cfg)
    backbone.init_weights()
    with torch.no_grad():
        outs = backbone.eval()(case.image())
    for name, out in zip(('c2', 'c3', 'c4', 'c5'), outs, strict=True):
        assert_close_to_largest(out, case[name], 1e-5, name)


@pytest.mark.parametrize('nested', ['state_dict', 'model'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_imagenet_file_starts_a_detector(nested, prefix, tmp_path):
    """The classifier and its norm are left out; the output norms start fresh."""
    given = official('classifier')
    nested_state = {prefix + key: value for key, value in given.items()}
    torch.save({nested: nested_state, 'arch': 'elsa_swin', 'epoch': 309}, tmp_path / 'elsa.pth')
    backbone = tiny(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'elsa.pth')))
    backbone.init_weights()
    state, expected = backbone.state_dict(), convert_official(given)
    for key in state.keys() & expected.keys():
        assert torch.equal(state[key], expected[key]), key
    fresh = {key for key in state if key not in expected and 'relative_position_index' not in key}
    assert fresh == {f'norm{stage}.{leaf}' for stage in range(4) for leaf in ('weight', 'bias')}
    assert all((state[key] == (1 if key.endswith('weight') else 0)).all() for key in fresh)


def test_classifier_keeps_its_norm():
    backbone = tiny(out_indices=(3,))
    given = official('classifier')
    backbone.load_state_dict(dict(given))
    assert torch.equal(backbone.norm3.weight, given['norm.weight'])
    assert torch.equal(backbone.norm3.bias, given['norm.bias'])


def test_a_trained_classifier_of_ours_starts_a_detector():
    classifier = tiny(out_indices=(3,))
    detector = tiny()
    detector.load_state_dict(classifier.state_dict())
    operators = (x.stages[1].blocks[0].attn.operator.state_dict() for x in (classifier, detector))
    assert all(
        torch.equal(*values)
        for values in zip(*(state.values() for state in operators), strict=True)
    )


def test_own_state_dict_is_loaded_as_it_is():
    first, second = tiny(), tiny()
    second.load_state_dict(first.state_dict())
    for key, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[key]), key


def test_both_fixed_matrices():
    ghost_head = torch.rand(2, 1, 8, 5, 5)
    converted = convert_official({'ghost_head': ghost_head})
    assert torch.equal(converted['mul'], ghost_head[0, 0])
    assert torch.equal(converted['add'], ghost_head[1, 0])


@pytest.mark.parametrize('missing', ['norm2.weight', 'layers.0.blocks.0.attn.post_proj.bias'])
def test_missing_parameters_are_named(missing):
    state = official('detector')
    del state[missing]
    with pytest.raises(ValueError, match='the checkpoint does not fit ELSA_Swin, keys: 1 missing'):
        tiny().load_state_dict(state)


def test_another_family():
    lesa = LESA_ResNet(
        50, base_channels=8, operator=dict(type='LESA', num_heads=4), input_size=(64, 64)
    )
    with pytest.raises(
        ValueError, match='looks like one of LESA with decomposed positions, not of ELSA,'
    ):
        tiny().load_state_dict(lesa.state_dict())
    for state in (official('detector'), official('classifier'), tiny().state_dict()):
        with pytest.raises(
            ValueError, match='looks like one of ELSA, not of LESA with decomposed positions,'
        ):
            lesa.load_state_dict(state)
    swin = ELSA_Swin(operator=None, **SIZES)
    with pytest.raises(ValueError, match='looks like one of window attention, not of ELSA,'):
        tiny().load_state_dict(swin.state_dict())


def test_inside_a_detector(tmp_path):
    cfg = dict(
        type='RetinaNet',
        backbone=dict(
            type='ELSA_Swin',
            operator=dict(type='ELSA', group_width=2),
            out_indices=(1, 2, 3),
            **SIZES,
        ),
        neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=8, num_outs=3),
        bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8),
    )
    detector = MODELS.build(cfg)
    state = {f'backbone.{key}': value for key, value in official('detector').items()}
    del state['backbone.norm0.weight'], state['backbone.norm0.bias']
    rest = detector.state_dict().items()
    state.update({key: value for key, value in rest if not key.startswith('backbone.')})
    torch.save({'meta': {}, 'state_dict': state}, tmp_path / 'detector.pth')
    load_checkpoint(detector, str(tmp_path / 'detector.pth'), strict=True)
    expected = state['backbone.layers.0.blocks.0.attn.attn.0.weight']
    assert torch.equal(
        detector.backbone.stages[0].blocks[0].attn.operator.surroundings.weight, expected
    )


def test_convert_checkpoint(run, tmp_path):
    given = official('classifier')
    averaged = {key: value + 1 for key, value in given.items()}
    torch.save({'state_dict': given, 'arch': 'elsa_swin_base'}, tmp_path / 'tiny.pth')
    torch.save({'state_dict': given, 'state_dict_ema': averaged}, tmp_path / 'base.pth')
    for name, expected in (('tiny', given), ('base', averaged)):
        out = run(
            ROOT / 'tools' / 'convert_checkpoint.py', tmp_path / f'{name}.pth', tmp_path / 'x.pth'
        )
        state = torch.load(tmp_path / 'x.pth', weights_only=True)['state_dict']
        assert ('state_dict_ema' in out) == (name == 'base')
        converted = convert_official(expected)
        assert state.keys() == converted.keys()
        assert all(torch.equal(state[key], converted[key]) for key in state)
