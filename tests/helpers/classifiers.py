"""The classification configs, and what makes each small enough for seconds."""

import copy

from helpers.configs import read
from helpers.paths import ROOT

CONFIGS = sorted(ROOT.glob('configs/imagenet/*.py'))
NAMES = [path.stem for path in CONFIGS if 'swin' not in path.stem]  # ResNets
SWINS = [path.stem for path in CONFIGS if 'swin' in path.stem]

BASE_CHANNELS = 16  # a quarter
IMAGE_SIZE = 64
CLASSES = ('blue', 'green', 'red')


def load(name):
    """Config of a name, free to be changed."""
    return copy.deepcopy(read(ROOT / f'configs/imagenet/{name}.py'))


def options(root):
    """What replaces values of a config, by their names with dots.

    Args:
        root (Path): ImageFolder with CLASSES.
    """
    changed = {
        'model.backbone.base_channels': BASE_CHANNELS,
        'model.backbone.input_size': (IMAGE_SIZE, IMAGE_SIZE),
        'model.head.in_channels': 32 * BASE_CHANNELS,
        'model.head.num_classes': len(CLASSES),
        'train_dataloader.dataset.pipeline.1.scale': IMAGE_SIZE,
        'val_evaluator.topk': (1,),
        'test_evaluator.topk': (1,),
    }
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        changed[f'{loader}.batch_size'] = 6
        changed[f'{loader}.num_workers'] = 0
        changed[f'{loader}.dataset.data_root'] = str(root)
        changed[f'{loader}.dataset.metainfo.classes'] = None
        if loader != 'train_dataloader':
            changed[f'{loader}.dataset.pipeline.1.scale'] = IMAGE_SIZE
            changed[f'{loader}.dataset.pipeline.2.crop_size'] = IMAGE_SIZE
    return changed
