"""Multi-scale training of HTC (paper, section 4.2)."""

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS

import lesa_mmdet  # noqa: F401

from helpers.configs import NAMES, load

MULTI_SCALE = [name for name in NAMES if '_ms-512' in name]
COUNT = 300


def draw_sizes(cfg):
    """Sizes (COUNT, 2) to which the training pipeline resizes an image."""
    np.random.seed(0)
    resize = TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[2])
    image = np.zeros((2, 3, 3), np.uint8)
    results = [resize(dict(img=image, img_shape=image.shape[:2])) for _ in range(COUNT)]
    assert all(result['img'].shape[:2] == result['img_shape'] for result in results)
    return np.array([result['img_shape'] for result in results])


@pytest.fixture(scope='module')
def sizes():
    return draw_sizes(load(MULTI_SCALE[0]))


def test_all_have_the_same_pipeline():
    pipelines = [load(name).train_dataloader.dataset.pipeline for name in MULTI_SCALE]
    assert len(pipelines) == 5 and all(pipeline == pipelines[0] for pipeline in pipelines)


def test_both_sides_are_one_number(sizes):
    assert (sizes[:, 0] == sizes[:, 1]).all()


def test_half_below_and_half_above_1024_uniformly(sizes):
    small = sizes[:, 0] < 1024
    assert abs(small.mean() - 0.5) < 4 * 0.5 / COUNT**0.5
    for low, high, drawn in ((512, 1024, sizes[small, 0]), (1024, 2048, sizes[~small, 0])):
        assert low <= drawn.min() and drawn.max() <= high
        # Kolmogorov and Smirnov's distance to the uniform distribution; beyond it once in 1e4.
        place = np.sort((drawn - low) / (high - low))
        rank = np.arange(len(place)) / len(place)
        assert abs(place - rank).max() < 2.2 / len(place) ** 0.5
