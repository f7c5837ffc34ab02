import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from lesa_mmdet.datasets.shapes import generate

from helpers.backbones import mmdet_scope  # noqa: F401

# The image that coco_mini has the map of COCO-stuff for, and one of few large objects.
IMAGE_IDS = (139, 802)


@pytest.fixture(scope='session')
def two_images(coco_root, tmp_path_factory):
    """Data set arguments of two COCO images with instance masks and semantic maps."""
    root = tmp_path_factory.mktemp('two_images')
    coco = COCO(coco_root / 'annotations' / 'instances_val2017_mini.json')
    part = {
        'images': coco.loadImgs(IMAGE_IDS),
        'annotations': coco.loadAnns(coco.getAnnIds(IMAGE_IDS)),
        'categories': coco.dataset['categories'],
    }
    (root / 'two_images.json').write_text(json.dumps(part), encoding='utf-8')
    (root / 'maps').mkdir()
    for image in part['images']:
        name = image['file_name'].replace('.jpg', '.png')
        real = coco_root / 'stuffthingmaps' / 'val2017' / name
        stuff = cv2.imread(str(real), cv2.IMREAD_UNCHANGED) if real.exists() else None
        if stuff is None:
            stuff = np.full((image['height'], image['width']), 255, np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
                stuff[coco.annToMask(annotation) > 0] = annotation['category_id'] - 1
        cv2.imwrite(str(root / 'maps' / name), stuff)
    return dict(
        data_root='',
        ann_file=str(root / 'two_images.json'),
        img=str(coco_root / 'val2017'),
        seg=str(root / 'maps'),
    )


@pytest.fixture(scope='session')
def two_shapes(tmp_path_factory):
    """Data set arguments of two images of the demo."""
    root = generate(tmp_path_factory.mktemp('shapes'), num_train=2, num_val=2)
    return dict(
        data_root='', ann_file=str(root / 'annotations' / 'train.json'), img=str(root / 'train')
    )
