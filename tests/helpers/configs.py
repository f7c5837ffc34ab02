"""Configs of detectors, what makes each small enough for one training step within seconds, and what
is read off any config.
"""

import copy
from functools import cache

import numpy as np
from mmengine.config import Config

from helpers.paths import ROOT

NO_DETECTORS = ('_base_', 'imagenet', 'crops')  # parts of configs, classifiers
CONFIGS = sorted(
    path for path in ROOT.glob('configs/*/*.py') if path.parent.name not in NO_DETECTORS
)
NAMES = [path.stem for path in CONFIGS]
# Detectors that are mmdet's own, recipe included, but for the backbone.
MMDETS_OWN = {
    'dino-4scale_lesa-r50_8xb2-12e_coco': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mask2former_lesa-r50_8xb2-lsj-50e_coco': (
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
    ),
}
SWINS = [path.stem for path in CONFIGS if path.parent.name == 'elsa']
RELEASED = [  # the recipe of LESA's paper
    name for name in NAMES if 'coco' in name and name not in (*MMDETS_OWN, *SWINS)
]

BASE_CHANNELS = 8
IMAGE_SIZE = 200  # about
PROPOSALS = 32


def load(name):
    """Config of a name, free to be changed."""
    return copy.deepcopy(read(CONFIGS[NAMES.index(name)]))


@cache
def read(path):
    """A config, read once: with mmdet's own bases that takes far longer than to copy it."""
    return Config.fromfile(path)


def matched(pattern, name):
    """The named parts of a config's name."""
    found = pattern.fullmatch(name)
    assert found, name
    return found


def redumped(cfg, folder):
    """A config, read from its own dump."""
    cfg.dump(folder / 'dumped.py')
    return Config.fromfile(folder / 'dumped.py')


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
    # A transformer keeps its width: too many numbers follow from it.
    transformer = cfg.model.type in ('DINO', 'Mask2Former')
    for part in dicts(cfg.model):
        for key in part:
            if key == 'in_channels' if transformer else key.endswith('channels'):
                part[key] = (np.array(part[key]) // factor).tolist()
            elif key == 'num_layers':
                part[key] = 1 if cfg.model.type == 'DINO' else 3
            elif key == 'num_queries':
                part[key] = PROPOSALS
    backbone.init_cfg = None
    if 'Swin' in backbone.type:
        image_factor = 1333 // IMAGE_SIZE
        # Without drop path, which by chance leaves a block without a gradient.
        backbone.update(embed_dims=24, depths=(1, 1, 2, 1), drop_path_rate=0.0)
        cfg.model.neck.in_channels = [24, 48, 96, 192]
    else:
        backbone.base_channels = BASE_CHANNELS
        image_factor = max(1, backbone.input_size[0] // IMAGE_SIZE)
        backbone.input_size = tuple(length // image_factor for length in backbone.input_size)
    for part in dicts((cfg.model.get('train_cfg'), cfg.model.test_cfg)):
        part.update({key: PROPOSALS for key in ('nms_pre', 'max_per_img', 'num') if key in part})
        if 'score_thr' in part:
            part.score_thr = 0
    for loader in ('train_dataloader', 'val_dataloader'):
        cfg[loader].update(num_workers=0, persistent_workers=False)
        for step in dicts((cfg[loader].dataset.pipeline, cfg.model.data_preprocessor)):
            for key in {'scale', 'crop_size', 'size'} & step.keys():
                step[key] = tuple(length // image_factor for length in step[key])
            if 'scales' in step:
                step.scales = [tuple(x // image_factor for x in scale) for scale in step.scales]
    return cfg
