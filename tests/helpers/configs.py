"""Configs of detectors, and what makes each small enough for one training step within seconds."""

import numpy as np
from mmengine.config import Config

from helpers.paths import ROOT

OTHERS = ('_base_', 'imagenet', 'crops')  # parts of configs, classifiers
CONFIGS = sorted(path for path in ROOT.glob('configs/*/*.py') if path.parent.name not in OTHERS)
NAMES = [path.stem for path in CONFIGS]

BASE_CHANNELS = 8
IMAGE_SIZE = 200  # about
PROPOSALS = 32


def load(name):
    """Config of a name."""
    return Config.fromfile(CONFIGS[NAMES.index(name)])


def dicts(node):
    """All dicts inside a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from dicts(child)


def shrink(cfg):
    """Make channels, images and numbers of boxes small; leave everything else as it is.

    A detector of random weights is sure of nothing, so detections of any score count.
    """
    backbone = cfg.model.backbone
    factor = backbone.get('base_channels', 64) // BASE_CHANNELS
    for part in dicts(cfg.model):
        for key in part:
            if key.endswith('channels'):
                part[key] = (np.array(part[key]) // factor).tolist()
    backbone.update(base_channels=BASE_CHANNELS, init_cfg=None)
    image_factor = max(1, backbone.input_size[0] // IMAGE_SIZE)
    backbone.input_size = tuple(length // image_factor for length in backbone.input_size)
    for part in dicts((cfg.model.train_cfg, cfg.model.test_cfg)):
        part.update({key: PROPOSALS for key in ('nms_pre', 'max_per_img', 'num') if key in part})
    cfg.model.test_cfg.rcnn.score_thr = 0
    for loader in ('train_dataloader', 'val_dataloader'):
        cfg[loader].update(num_workers=0, persistent_workers=False)
        for step in dicts(cfg[loader].dataset.pipeline):
            if 'scale' in step:
                step.scale = tuple(length // image_factor for length in step.scale)
    return cfg
