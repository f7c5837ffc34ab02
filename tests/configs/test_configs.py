"""Every config by name: it says what its name says, builds, trains a step and evaluates."""

import re

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

import lesa_mmdet  # noqa: F401

from helpers.configs import (
    MMDETS_OWN,
    NAMES,
    RELEASED,
    SWINS,
    load,
    matched,
    redumped,
    shrink,
)
from helpers.training import start_residuals, step_by_hand

every_config = pytest.mark.parametrize('name', NAMES)
released_config = pytest.mark.parametrize('name', RELEASED)

# The rows of the paper's Table 3, backbone and operator, in its order.
TABLE_3 = [
    f'mask-rcnn_{operator}{backbone}_fpn_8xb1-1x_coco-1024'
    for backbone in ('r50', 'wrn50')
    for operator in ('', 'sa-', 'lesa-')
] + [
    f'{framework}_{operator}{backbone}-dconv-c3-c5_fpn_{schedule}-20e_coco-{size}'
    for framework, backbone, schedule, size in (
        ('mask-rcnn', 'r50', '8xb1', 1024),
        ('mask-rcnn', 'wrn50', '8xb1', 1024),
        ('htc', 'wrn50', '4xb1', 1024),
        ('htc', 'wrn50', '4xb1', 1280),
    )
    for operator in ('', 'lesa-')
]
NAME = re.compile(
    r'(?P<framework>(cascade-)?mask-rcnn|faster-rcnn|retinanet|htc|htc-without-semantic)'
    r'_(?P<operator>lesa-|sa-|)(?P<backbone>r50|wrn50)(?P<dconv>-dconv-c3-c5|)_fpn'
    r'_(?P<ms>ms-512-2048-|)(?P<gpus>\d)xb1-(?P<amp>amp-|)(?P<cp>cp-|)(?P<epochs>1x|20e)'
    r'_coco(-(?P<size>\d+))?(?P<start>_from-resnet|)'
)
CHECKPOINTS = {
    ('lesa-', 'r50'): 'checkpoints/lesa_resnet50_imagenet.pth',
    ('lesa-', 'wrn50'): 'checkpoints/lesa_wrn50_imagenet.pth',
    ('sa-', 'r50'): 'checkpoints/sa_resnet50_imagenet.pth',
    ('sa-', 'wrn50'): 'checkpoints/sa_wrn50_imagenet.pth',
    ('', 'r50'): 'https://download.pytorch.org/models/resnet50-0676ba61.pth',
    ('', 'wrn50'): 'https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth',
}


def test_every_row_of_table_3_is_a_config():
    assert len(TABLE_3) == 14
    assert not set(TABLE_3) - set(NAMES)


@released_config
def test_name_says_what_it_is(name):
    named, cfg = matched(NAME, name), load(name)
    backbone = cfg.model.backbone
    assert backbone.type == {'r50': 'LESA_ResNet', 'wrn50': 'LESA_WRN'}[named['backbone']]
    operators = {'lesa-': dict(type='LESA'), 'sa-': dict(type='SelfAttention'), '': None}
    assert backbone.get('operator', dict(type='LESA')) == operators[named['operator']]
    start = '' if named['start'] else named['operator']
    assert backbone.init_cfg.checkpoint == CHECKPOINTS[start, named['backbone']]
    assert backbone.get('pretrained_conv', False) == bool(named['start'])
    assert backbone.depth == 50
    assert backbone.with_cp if named['cp'] else not backbone.get('with_cp')

    assert bool(backbone.get('dcn')) == bool(named['dconv'])
    if named['dconv']:
        assert backbone.dcn == dict(type='DCN', deform_groups=1, fallback_on_stride=False)
        assert backbone.stage_with_dcn == (False, True, True, True)

    assert cfg.train_dataloader.batch_size == 1
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=int(named['gpus']))
    assert cfg.get('custom_hooks', []) == [dict(type='BackboneAutocastHook')] * bool(named['amp'])

    semantic = cfg.model.get('roi_head', {}).get('semantic_head')
    assert bool(semantic) == (named['framework'] == 'htc')
    assert ('seg' in cfg.train_dataloader.dataset.data_prefix) == bool(semantic)
    if semantic:
        assert semantic.num_classes == 183 and semantic.seg_scale_factor == 1 / 8
        assert semantic.loss_seg.loss_weight == 0.2
        assert semantic.loss_seg.avg_non_ignore


@released_config
def test_images_are_resized_as_the_name_says(name):
    named, cfg = matched(NAME, name), load(name)
    size = named['size'] and (int(named['size']),) * 2
    expected = (
        dict(type='Resize', scale=size, keep_ratio=False)
        if size
        else dict(type='Resize', scale=(1333, 800), keep_ratio=True)
    )
    for loader in ('val_dataloader', 'test_dataloader'):
        assert dict(cfg[loader].dataset.pipeline[1], **expected) == cfg[loader].dataset.pipeline[1]
    # The tables have an entry for every offset that a map at the nominal size has.
    assert cfg.model.backbone.input_size == (size or (1333, 1333))
    train = cfg.train_dataloader.dataset.pipeline
    assert [step.type for step in train[:2]] == ['LoadImageFromFile', 'LoadAnnotations']
    if named['ms']:
        assert train[2].type == 'RandomChoice'  # its distribution: test_multi_scale.py
    else:
        assert dict(train[2], **expected) == train[2]
    assert train[3].type == 'RandomFlip' and train[3].prob == 0.5


@released_config
def test_recipe_is_the_released_one(name):
    cfg = load(name)
    model, backbone = cfg.model, cfg.model.backbone
    optimizer = dict(cfg.optim_wrapper.optimizer)
    optimizer.pop('lr')  # with the schedule: test_schedules.py
    assert optimizer == dict(type='SGD', momentum=0.9, weight_decay=0.0001)
    assert backbone.frozen_stages == 1 and backbone.norm_eval
    assert model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert model.data_preprocessor.std == [58.395, 57.12, 57.375]
    assert model.data_preprocessor.bgr_to_rgb and model.data_preprocessor.pad_size_divisor == 32
    assert model.neck.type == 'FPN' and model.neck.in_channels == [256, 512, 1024, 2048]
    if name.startswith('retinanet'):
        return
    if name.startswith(('mask-rcnn', 'htc')):  # of the paper: proposals without an area stay
        assert model.train_cfg.rpn_proposal.min_bbox_size == -1
        assert model.test_cfg.rpn.min_bbox_size == -1
    rcnn = model.test_cfg.rcnn
    assert rcnn.max_per_img == 100
    assert rcnn.score_thr == (0.001 if name.startswith('htc') else 0.05)


@pytest.mark.parametrize('name', MMDETS_OWN)
def test_other_detectors_are_mmdets_but_for_the_backbone(name, tmp_path):
    cfg = load(name).to_dict()
    base = tmp_path / 'base.py'
    base.write_text(f'_base_ = {MMDETS_OWN[name]!r}', encoding='utf-8')
    theirs = Config.fromfile(base).to_dict()
    backbone = cfg['model']['backbone']
    assert backbone['type'] == 'LESA_ResNet'
    assert backbone['init_cfg']['checkpoint'] == CHECKPOINTS['lesa-', 'r50']
    for key in ('type', 'input_size', 'init_cfg'):
        theirs['model']['backbone'][key] = backbone[key]
    theirs['train_dataloader']['persistent_workers'] = False
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        theirs[loader]['dataset']['type'] = 'CheckedCocoDataset'
    for name, hook in cfg['lesa_hooks'].items():
        theirs['default_hooks'].setdefault(name, {}).update(hook)
    ours = ('backbones', 'custom_imports', 'lesa_dataloaders', 'lesa_hooks')
    theirs.update({key: cfg[key] for key in ours})
    assert without_scopes(cfg) == without_scopes(theirs)


def without_scopes(node):
    """A config without the remarks that mmengine makes on where parts of it come from."""
    if isinstance(node, dict):
        return {key: without_scopes(value) for key, value in node.items() if key != '_scope_'}
    return [without_scopes(value) for value in node] if isinstance(node, (list, tuple)) else node


@every_config
def test_rebuilds_from_its_own_dump(name, tmp_path):
    cfg = load(name)
    dumped = redumped(cfg, tmp_path)
    assert dumped.to_dict() == cfg.to_dict()
    if name in SWINS:  # mmdet's Swin does not build on the meta device
        dumped = shrink(dumped)
    with torch.device('cpu' if name in SWINS else 'meta'):
        assert sum(1 for _ in MODELS.build(dumped.model).parameters()) > 100


@every_config
def test_trains_a_step_and_evaluates(name, request, tmp_path):
    torch.manual_seed(0)
    cfg = shrink(load(name))
    data = request.getfixturevalue('two_images' if 'coco' in name else 'two_shapes')
    for loader in ('train_dataloader', 'val_dataloader'):
        dataset = cfg[loader].dataset
        dataset.update(data_root='', ann_file=data['ann_file'])
        dataset.data_prefix = {kind: data[kind] for kind in dataset.data_prefix}
    cfg.val_evaluator.ann_file = data['ann_file']
    runner = Runner(
        model=cfg.model,
        val_dataloader=cfg.val_dataloader,
        val_evaluator=cfg.val_evaluator,
        val_cfg=cfg.val_cfg,
        custom_hooks=cfg.get('custom_hooks'),
        work_dir=str(tmp_path),
        default_scope='mmdet',
        log_level='ERROR',
    )
    train_step(runner, cfg)
    metrics = runner.val()
    for kind in np.atleast_1d(cfg.val_evaluator.metric):
        assert 0 <= metrics[f'coco/{kind}_mAP'] <= 1


def train_step(runner, cfg):
    """One step by hand, in order to see the gradients."""
    runner.model.init_weights()
    start_residuals(runner.model.backbone)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    runner.call_hook('before_run')
    step_by_hand(runner.model, batch, cfg.optim_wrapper.optimizer)
    runner.call_hook('after_run')
