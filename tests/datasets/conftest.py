import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lesa_mmdet.datasets.shapes import generate


@pytest.fixture(scope='session')
def clean(tmp_path_factory):
    """A small data set without problems, under COCO's names, with maps."""
    root = generate(tmp_path_factory.mktemp('data'), num_train=3, num_val=2, image_size=64)
    maps = root / 'stuffthingmaps' / 'train'
    maps.mkdir(parents=True)
    for image in (root / 'train').iterdir():
        labels = np.full((64, 64), 255, dtype=np.uint8)
        labels[:32] = 182
        Image.fromarray(labels).save(maps / f'{image.stem}.png')
    for split in ('train', 'val'):
        file = root / 'annotations' / f'{split}.json'
        file.rename(file.with_name(f'instances_{split}.json'))
    return root


@pytest.fixture
def data(clean, tmp_path):
    """A copy of it, and a function that edits its training annotations."""
    root = shutil.copytree(clean, tmp_path / 'data')
    file = root / 'annotations' / 'instances_train.json'

    def edit(change):
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return root, edit
