import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from helpers.classifiers import CLASSES


@pytest.fixture(autouse=True)
def mmpretrain_scope(mmpretrain):
    """Registries look into mmpretrain, as in a training."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


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
