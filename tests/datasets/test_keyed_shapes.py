"""Keyed shapes: crops of the objects say nothing about their class, their keys say all."""

import cv2
import numpy as np
import pytest

from lesa_mmdet.datasets import keyed_shapes
from lesa_mmdet.datasets.generated import write_data_set

SIZE = 128
MARGIN = 8  # pixels around a box


def draw(seed, size=SIZE):
    return keyed_shapes.draw_image(np.random.default_rng(seed), size)


def crop(image, mask):
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    rows = slice(max(0, y - MARGIN), y + height + MARGIN)
    return image[rows, max(0, x - MARGIN) : x + width + MARGIN]


@pytest.mark.parametrize('size', [64, 101, 192])
def test_shapes_are_whole_apart_and_of_every_class(size):
    counts, classes = set(), set()
    for seed in range(60):
        image, shapes = draw(seed, size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert np.sum([mask for _, mask in shapes], axis=0).max() == 1
        areas = [mask.sum() / size**2 for _, mask in shapes]
        low, high = (side**2 for side in keyed_shapes.SHAPE_SIDE)
        assert 0.6 * low < min(areas) and max(areas) < 1.6 * high
        counts.add(len(shapes))
        classes |= {index for index, _ in shapes}
    assert counts == {1, 2, 3} and classes == {0, 1, 2}


def test_class_changes_pixels_of_the_key_alone_half_an_image_away(monkeypatch):
    """So what is nearer to an object, and all else in the image, cannot tell its class."""
    images = []
    for hues in ((0, 1 / 3, 2 / 3), (1 / 3, 2 / 3, 0)):
        monkeypatch.setattr(
            keyed_shapes, 'KEY_HUES', dict(zip(keyed_shapes.CLASSES, hues, strict=True))
        )
        images.append([draw(seed) for seed in range(40)])
    for (image, shapes), (recoloured, same_shapes) in zip(*images, strict=True):
        assert [index for index, _ in shapes] == [index for index, _ in same_shapes]
        key = (image != recoloured).any(axis=-1)
        key_x = np.nonzero(key)[1].mean()
        assert np.ptp(np.nonzero(key)[1]) <= 1.2 * keyed_shapes.KEY_SIDE[1] * SIZE
        for _, mask in shapes:
            x, _, width, _ = cv2.boundingRect(mask.astype(np.uint8))
            assert abs(key_x - (x + width / 2)) >= keyed_shapes.MIN_DISTANCE * SIZE - 2
            np.testing.assert_array_equal(crop(image, mask), crop(recoloured, mask))


def linear_accuracy(samples, labels):
    """Of least squares with a ridge, one against all, on the last third of the samples."""
    samples = np.column_stack([samples, np.ones(len(samples))])
    train = slice(2 * len(samples) // 3)
    test = slice(train.stop, None)
    gram = samples[train].T @ samples[train] + np.eye(samples.shape[1])
    weights = np.linalg.solve(gram, samples[train].T @ np.eye(3)[labels[train]])
    return np.mean((samples[test] @ weights).argmax(1) == labels[test])


def test_crops_leave_the_class_at_chance_and_the_key_does_not():
    crops, keys, labels = [], [], []
    for seed in range(600):
        image, shapes = draw(seed)
        index, mask = shapes[0]
        crops.append(cv2.resize(crop(image, mask), (6, 6), interpolation=cv2.INTER_AREA).ravel())
        pixels = image.reshape(-1, 3).astype(int)
        keys.append(pixels[np.argsort(np.ptp(pixels, axis=1))[-50:]].mean(axis=0))
        labels.append(index)
    labels = np.array(labels)
    spread = (2 / 9 / (len(labels) // 3)) ** 0.5  # standard deviation of guessing
    assert abs(linear_accuracy(np.array(crops) / 255, labels) - 1 / 3) < 3 * spread
    assert linear_accuracy(np.array(keys) / 255, labels) > 0.9


def test_another_drawing_in_the_same_folder_is_built_anew(tmp_path):
    sizes = dict(num_train=2, num_val=1, image_size=64)
    first = keyed_shapes.generate(tmp_path, **sizes) / 'train' / 'shapes_000000.jpg'
    before = first.read_bytes()

    def black(rng, size):
        mask = np.ones((size, size), bool)
        return np.zeros((size, size, 3), np.uint8), [(0, mask)]

    write_data_set(tmp_path, black, ('night',), {'drawing': 'black'}, **sizes, seed=0)
    assert first.read_bytes() != before
    keyed_shapes.generate(tmp_path, **sizes)
    assert first.read_bytes() == before
