"""A checkpoint is loaded completely, or refused with what does not fit."""

import re
from contextlib import nullcontext

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict

from lesa_mmdet.checkpoints.fit import load_strict, strict_loading, weights_of
from lesa_mmdet.upstream import MODELS

from helpers.backbones import mmdet_scope  # noqa: F401
from helpers.paths import DEMO


@pytest.fixture
def build():
    """Builds the demo's detector for a number of classes."""
    from mmengine.config import Config

    def build_detector(num_classes=3, **backbone):
        cfg = Config.fromfile(DEMO).model
        cfg.backbone.update(base_channels=8, **backbone)
        cfg.neck.in_channels = [32, 64, 128, 256]
        for head in ('bbox_head', 'mask_head'):
            cfg.roi_head[head].num_classes = num_classes
        return MODELS.build(cfg)

    return build_detector


def checkpoint_of(model, without=None, **added):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value for key, value in state.items() if not without or without not in key}
    return {'meta': {}, 'state_dict': {**state, **added}}


def load(model, checkpoint, **options):
    """As mmengine does in a run."""
    with strict_loading(model, checkpoint, **options):
        load_state_dict(model, checkpoint['state_dict'])


def assert_loaded(model, checkpoint, fresh=()):
    """Whether a model has all of a checkpoint but for what starts fresh."""
    own = model.state_dict()
    weights = checkpoint['state_dict']
    assert {key for key in weights if not torch.equal(own[key], weights[key])} == set(fresh)


def test_its_own_checkpoint_fits(build):
    source, model = build(), build()
    checkpoint = checkpoint_of(source, without='num_batches_tracked')
    checkpoint['state_dict'] = {f'module.{k}': v for k, v in checkpoint['state_dict'].items()}
    load_strict(model, checkpoint)
    checkpoint = checkpoint_of(source)
    load_strict(model, checkpoint)
    assert_loaded(model, checkpoint)


@pytest.mark.parametrize(
    'without, message',
    [
        ('head', r'missing \(rpn_head.rpn_conv.weight, .*, \.\.\.\)'),
        ('mask_head.conv_logits', r'2 missing \(roi_head.mask_head.conv_logits.weight, .*bias\)$'),
        ('neck', r'missing \(neck.lateral_convs'),
        ('backbone', r'missing \(backbone\.'),
    ],
)
def test_what_is_missing_is_refused(without, message, build):
    with pytest.raises(ValueError, match=f'does not fit MaskRCNN: \\d+ {message}|{message}'):
        load_strict(build(), checkpoint_of(build(), without))


def test_what_is_unexpected_is_refused(build):
    checkpoint = checkpoint_of(build(), **{'roi_head.semantic_head.x': torch.zeros(1)})
    with pytest.raises(ValueError, match=r'1 unexpected \(roi_head.semantic_head.x\)'):
        load_strict(build(), checkpoint)


@pytest.mark.parametrize('without', [None, 'neck'])
def test_the_model_is_not_compared_a_second_time(without, build):
    model = build()
    with pytest.raises(ValueError, match='neck') if without else nullcontext():
        load_strict(model, checkpoint_of(build(), without))
    assert model.load_state_dict({}, strict=False).missing_keys


def test_other_classes_are_not_evaluated(build):
    shapes = r'roi_head.bbox_head.fc_cls.weight \(81, 256\) instead of \(4, 256\)'
    with pytest.raises(ValueError, match=f'4 of another shape .{shapes}.*load_from only'):
        load_strict(build(), checkpoint_of(build(80)))


def test_heads_of_other_classes_start_fresh_in_fine_tuning(build, told):
    source, model = build(80), build()
    before = checkpoint_of(model)['state_dict']
    checkpoint = checkpoint_of(source)
    load(model, checkpoint, fine_tune=True)
    fresh = [
        f'roi_head.{name}.{leaf}'
        for name in ('bbox_head.fc_cls', 'mask_head.conv_logits')
        for leaf in ('weight', 'bias')
    ]
    assert_loaded(model, checkpoint, fresh)
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in fresh)
    assert checkpoint['state_dict'].keys() == before.keys()
    (line,) = (line for line in told if 'fresh' in line)
    assert re.match(
        'heads of another number of classes start fresh: 4 parameters .*fc_cls.weight', line
    )


def test_all_else_is_refused_in_fine_tuning_unless_asked_for(build, told):
    def checkpoint():
        wrong = {'neck.lateral_convs.0.conv.weight': torch.zeros(9, 9, 1, 1), 'x': torch.zeros(1)}
        return checkpoint_of(build(80), without='rpn_head', **wrong)

    model = build()
    with pytest.raises(ValueError, match=r'1 of another shape \(neck.lateral_convs.0'):
        load(model, checkpoint(), fine_tune=True)
    load(model, checkpoint(), fine_tune=True, partial=True)
    (line,) = (line for line in told if 'in part' in line)
    assert re.search(r'1 of another shape.*6 missing \(rpn_head.*1 unexpected \(x\)', line)


def test_position_tables_are_fitted_unless_an_optimizer_knows_them(build, told):
    checkpoint = checkpoint_of(build(input_size=(160, 160)))
    load(model := build(input_size=(320, 320)), checkpoint)
    assert any('position tables are fitted' in line for line in told)
    with pytest.raises(ValueError, match=r'of another shape \(backbone.layer3.1.conv2.context'):
        load(model, checkpoint_of(build(input_size=(160, 160))), exact=True)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(value, build):
    checkpoint = checkpoint_of(build(), **{'neck.fpn_convs.0.conv.bias': torch.tensor([value])})
    with pytest.raises(ValueError, match=r'not finite.*1 tensors \(neck.fpn_convs.0.conv.bias\)'):
        load_strict(build(), checkpoint)


@pytest.mark.parametrize(
    'weight, reason',
    [
        (torch.tensor([1e300], dtype=torch.float64), 'not finite'),
        (torch.tensor([-1e39], dtype=torch.float64), 'not finite'),
        (torch.tensor([torch.nan], dtype=torch.float16), 'not finite'),
        (torch.tensor([1 + 1j]), 'are complex numbers'),
        (torch.tensor([1j], dtype=torch.complex128), 'are complex numbers'),
    ],
)
@pytest.mark.parametrize(
    'key', ['rpn_head.rpn_conv.bias', 'backbone.bn1.weight', 'module.backbone.bn1.weight']
)
def test_weights_that_would_not_be_finite_in_the_model_are_refused(key, weight, reason, build):
    checkpoint = checkpoint_of(build())
    shape = checkpoint['state_dict'].pop(key.removeprefix('module.')).shape
    checkpoint['state_dict'][key] = weight.expand(shape).clone()
    with pytest.raises(ValueError, match=f'{reason}.*1 tensors .*{key.split(".", 1)[1]}'):
        load_strict(build(), checkpoint)


def test_a_backbone_alone_is_finite_too(build):
    backbone = build().backbone
    state = {**backbone.state_dict(), 'bn1.weight': torch.full((8,), 1e300, dtype=torch.float64)}
    for strict in (True, False):
        with pytest.raises(ValueError, match=r'not finite.*1 tensors \(bn1.weight\)'):
            backbone.load_state_dict(state, strict)


@pytest.mark.parametrize(
    'state, reason',
    [
        ({1: torch.zeros(1)}, r'1 keys are no text \(1\)'),
        ({'a': torch.zeros(1), 'b': 1.0}, r'1 values are no tensors \(b\)'),
        ({'a': torch.zeros(1), 'b\x1b[2J': {}}, r'1 values are no tensors \(b\\x1b\[2J\)'),
        ({'a' * 10**7: torch.zeros(1)}, r'nothing of this model, but 1 keys \(a+\.\.\. \(10,000'),
        ([torch.zeros(1)], 'no state dict, only a list'),
        ('text', 'no state dict, only a str'),
        (None, 'no state dict, only a NoneType'),
        (7, 'no state dict, only a int'),
    ],
)
def test_another_kind_of_state_dict_is_refused(state, reason, build):
    with pytest.raises(ValueError, match=reason) as error:
        load_strict(build(), {'state_dict': state})
    assert len(str(error.value)) < 1000


def test_a_backbone_alone_and_something_else_are_named(build):
    backbone = {'state_dict': build().backbone.state_dict()}
    with pytest.raises(ValueError, match='it is one of a backbone alone: .*init_cfg'):
        load_strict(build(), backbone)
    with pytest.raises(ValueError, match=r'nothing of this model, but 2 keys \(epoch, optim\)'):
        load_strict(build(), {'epoch': 3, 'optim': {}})
    with pytest.raises(ValueError, match='no state dict, only a list'):
        weights_of([1])
