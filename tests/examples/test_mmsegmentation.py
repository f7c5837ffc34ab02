"""The example of docs/reuse.md: LESA in mmsegmentation, through mmengine's root registry."""

import importlib.util

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from lesa_mmdet import LESA_ResNet

from helpers.paths import ROOT

(EXAMPLE,) = (ROOT / 'examples' / 'mmsegmentation').glob('*.py')
SIZE = 64


@pytest.fixture
def mmseg_scope(mmpretrain):
    if importlib.util.find_spec('mmseg') is None:
        pytest.skip('mmsegmentation is not installed: run make test')
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def test_example_trains(mmseg_scope):
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    cfg = Config.fromfile(EXAMPLE)
    cfg.model.backbone.update(base_channels=8, input_size=(SIZE, SIZE), init_cfg=None)
    cfg.model.decode_head.update(in_channels=[32, 64, 128, 256], channels=8)
    cfg.model.auxiliary_head.update(in_channels=128, channels=8)
    cfg.model.data_preprocessor.size = (SIZE, SIZE)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    assert type(model.backbone) is LESA_ResNet
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    model.init_weights()
    weight = model.backbone.layer4[2].conv2.context.qkv.weight
    before = weight.detach().clone()
    for _ in range(2):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 150, (1, SIZE, SIZE))))
        sample.set_metainfo(dict(img_shape=(SIZE, SIZE)))
        data = dict(inputs=[torch.randint(0, 256, (3, SIZE, SIZE))] * 2, data_samples=[sample] * 2)
        losses = model.train().train_step(data, optimizer)
        assert all(value.isfinite().all() for value in losses.values())
    assert not torch.equal(weight, before)
