"""The configs of ELSA-Swin, and of Swin beside them: names and released recipes."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

import lesa_mmdet  # noqa: F401

from helpers.configs import NAMES, SWINS, load, matched, shrink
from helpers.training import replay_schedule

NAME = re.compile(
    r'(?P<framework>(cascade-)?mask-rcnn)_(?P<operator>elsa-|)swin-(?P<size>[ts])_fpn'
    r'_8xb2-ms-crop-(?P<epochs>[13])x_coco'
)
DROP_PATH = {
    ('mask-rcnn', 't', '1'): 0.1,
    ('mask-rcnn', 't', '3'): 0.2,
    ('mask-rcnn', 's', '1'): 0.2,
    ('mask-rcnn', 's', '3'): 0.75,
    ('cascade-mask-rcnn', 't', '1'): 0.0,
    ('cascade-mask-rcnn', 't', '3'): 0.2,
    ('cascade-mask-rcnn', 's', '1'): 0.2,
    ('cascade-mask-rcnn', 's', '3'): 0.75,
}
EPOCH = 140  # iterations, here: the warm-up ends before the rate falls
every_swin = pytest.mark.parametrize('name', SWINS)


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
    """mmdet's own config of Swin."""
    path = tmp_path_factory.mktemp('theirs') / 'base.py'
    path.write_text(
        "_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py'", encoding='utf-8'
    )
    return Config.fromfile(path)


def test_every_released_detector_and_its_baselines_are_there():
    assert set(SWINS) == {
        f'{framework}_{operator}swin-{size}_fpn_8xb2-ms-crop-{epochs}x_coco'
        for framework, size, epochs in DROP_PATH
        for operator in ('elsa-', '')
        if operator or framework == 'mask-rcnn'
    }
    assert len(SWINS) == 12 and not set(SWINS) - set(NAMES)


@every_swin
def test_name_says_what_it_is(name):
    named, cfg = matched(NAME, name), load(name)
    backbone, small = cfg.model.backbone, named['size'] == 's'
    assert tuple(backbone.get('depths', (2, 2, 6, 2))) == (2, 2, 18 if small else 6, 2)
    kind = 'small' if small else 'tiny'
    if named['operator']:
        assert backbone.type == 'ELSA_Swin'
        assert backbone.init_cfg.checkpoint == f'checkpoints/elsa_swin_{kind}_imagenet.pth'
        assert ('operator' in backbone) == small  # the default is T's
        if small:
            assert backbone.operator == dict(type='ELSA', group_width=8)
        rate = DROP_PATH[named['framework'], named['size'], named['epochs']]
        assert backbone.drop_path_rate == rate
    else:
        assert backbone.type == 'SwinTransformer'
        assert f'swin_{kind}_' in backbone.init_cfg.checkpoint
    assert cfg.model.type == dict(mask='MaskRCNN', cascade='CascadeRCNN')[name.partition('-')[0]]
    assert cfg.model.neck.in_channels == [96, 192, 384, 768]
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)


@every_swin
def test_images_are_augmented_as_mmdets_swin_has_them(name, theirs):
    cfg = load(name)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.pipeline == theirs[loader].dataset.pipeline
    assert cfg.model.data_preprocessor == theirs.model.data_preprocessor


@every_swin
def test_schedule_is_the_released_one(name):
    named = matched(NAME, name)
    epochs = 12 * int(named['epochs'])
    warm_up = 500 if named['operator'] else 1000
    expected = torch.full((epochs, EPOCH), 1e-4)
    for step in (8, 11) if epochs == 12 else (27, 33):
        expected[step:] *= 0.1
    expected.flatten()[:warm_up] *= torch.linspace(0.001, 1, warm_up)
    torch.testing.assert_close(replay_schedule(load(name), EPOCH), expected)


@pytest.mark.parametrize('name', [name for name in SWINS if 'elsa' in name])
def test_all_but_norms_decays(name):
    cfg = shrink(load(name))
    model = MODELS.build(cfg.model).backbone
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer).__name__ == 'AdamW' and optimizer.defaults['betas'] == (0.9, 0.999)
    decays = {id(group['params'][0]): group['weight_decay'] for group in optimizer.param_groups}
    for key, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0 if 'norm' in key else 0.05), key


@pytest.mark.parametrize('name', [name for name in SWINS if 'cascade' in name])
def test_box_heads_of_cascade_are_those_of_convnext(name, tmp_path):
    path = 'convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco'
    (tmp_path / 'base.py').write_text(f"_base_ = 'mmdet::{path}.py'", encoding='utf-8')
    expected = Config.fromfile(tmp_path / 'base.py', import_custom_modules=False)
    # But for what mmdet 3 does otherwise than theirs: tests/models/test_roi_heads.py.
    expected.model.roi_head.type = 'LESA_CascadeRoIHead'
    expected.model.train_cfg.rpn_proposal.min_bbox_size = -1
    expected.model.test_cfg.rpn.min_bbox_size = -1
    cfg = load(name)
    for part in ('rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
        assert cfg.model[part] == expected.model[part]
