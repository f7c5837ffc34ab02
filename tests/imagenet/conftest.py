import os

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from helpers.classifiers import CLASSES


@pytest.fixture(autouse=True)
def mmpretrain_scope(pretrain_env):
    """Registries look into mmpretrain, as in a training."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def run(run, pretrain_env):
    """Run a command of the repository where mmpretrain can be imported, unless the test says no."""

    def run_command(*command, **options):
        if 'PYTHONPATH' in options:
            return run(*command, **options)
        return run(*command, **{**pretrain_env, 'forked': True, **options})

    return run_command


@pytest.fixture
def without_mmpretrain(pretrain_env):
    """Environment variables of processes that cannot import mmpretrain."""
    import mmpretrain

    *_, folder = pretrain_env['PYTHONPATH'].split(os.pathsep)
    if not mmpretrain.__file__.startswith(folder):
        pytest.skip(f'mmpretrain is installed: {mmpretrain.__file__}')
    return dict(PYTHONPATH='')


@pytest.fixture(scope='session')
def image_folder(tmp_path_factory):
    """An ImageFolder of noisy images of three colours: train/COLOUR/*.png, val/COLOUR/*.png."""
    root = tmp_path_factory.mktemp('image_folder')
    rng = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 2)):
        for channel, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                image = rng.integers(0, 100, (80, 96, 3), dtype=np.uint8)
                image[..., channel] += 120
                cv2.imwrite(str(folder / f'{index}.png'), image)
    return root
