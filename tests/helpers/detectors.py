"""A small detector with a checkpoint of random weights, and images for it."""

import sys

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint

from lesa_mmdet.upstream import MODELS

from helpers.paths import DEMO


def save_detector(folder, operator, **backbone):
    """The demo's detector with an operator, freshly initialized: (config file, checkpoint)."""
    cfg = Config.fromfile(DEMO)
    cfg.model.backbone.operator = operator
    cfg.merge_from_dict(dict(model=dict(backbone=backbone, test_cfg=dict(rcnn=dict(score_thr=0)))))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        MMLogger._instance_dict.clear()  # of a test before, its file may be closed
        model.init_weights()
    folder.mkdir(parents=True, exist_ok=True)
    config, checkpoint = folder / 'tiny.py', folder / 'tiny.pth'
    cfg.dump(config)
    state = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(cfg.metainfo)))
    save_checkpoint(state, str(checkpoint))
    return config, checkpoint


def save_coordinates(path, width, height):
    """An image whose red and green are the x and y of the pixel, lossless."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    mmcv.imwrite(np.stack((np.zeros_like(x), y, x), axis=-1), str(path))  # BGR
    return path


def run_main(monkeypatch, main, *arguments):
    """Run the ``main`` of a tool in this process."""
    monkeypatch.setattr(sys, 'argv', ['tool', *map(str, arguments)])
    main()
