import numpy as np
import pytest
from PIL import Image

from helpers.shapes import editable_copy, generate_as_coco


@pytest.fixture(scope='session')
def clean(tmp_path_factory):
    """A small data set without problems, under COCO's names, with maps."""
    root = generate_as_coco(tmp_path_factory.mktemp('data'), num_train=3, num_val=2, image_size=64)
    maps = root / 'stuffthingmaps' / 'train'
    maps.mkdir(parents=True)
    for image in (root / 'train').iterdir():
        labels = np.full((64, 64), 255, dtype=np.uint8)
        labels[:32] = 182
        Image.fromarray(labels).save(maps / f'{image.stem}.png')
    return root


@pytest.fixture
def data(clean, tmp_path):
    """A copy of it, and a function that edits the annotations of a split."""
    return editable_copy(clean, tmp_path / 'data')
