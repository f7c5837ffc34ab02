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


def crop(image, mask, margin=MARGIN):
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    rows = slice(max(0, y - margin), y + height + margin)
    return image[rows, max(0, x - margin) : x + width + margin]


@pytest.mark.parametrize('size', [64, 101, 192])
def test_shapes_are_whole_apart_and_of_every_class(size):
    counts, classes = set(), set()
    for seed in range(60):
        image, shapes = draw(seed, size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert np.sum([mask for _, mask in shapes], axis=0).max() == 1
        areas = [mask.sum() / size**2 for _, mask in shapes]
        low, high = (side**2 for side in keyed_shapes.SHAPE_SIDE)
        assert 0.6 * low < min(areas) and max(areas) < 1.4 * high
        counts.add(len(shapes))
        classes |= {index for index, _ in shapes}
    assert counts == {1, 2, 3} and classes == {0, 1, 2}


def test_class_changes_pixels_of_the_key_alone_half_an_image_away(monkeypatch):
    """So that what is within half an image's width of an object cannot tell its class."""
    images = []
    for hues in ((0, 1 / 3, 2 / 3), (1 / 3, 2 / 3, 0)):
        monkeypatch.setattr(keyed_shapes, 'KEY_HUES', dict(zip(keyed_shapes.CLASSES, hues)))
        images.append([draw(seed) for seed in range(40)])
    for (image, shapes), (recoloured, same_shapes) in zip(*images):
        assert [index for index, _ in shapes] == [index for index, _ in same_shapes]
        changed = (image != recoloured).any(axis=-1)
        parts, labels = cv2.connectedComponents(
            cv2.dilate(changed.astype(np.uint8), np.ones((3, 3)))
        )
        assert parts - 1 == len(shapes)
        for _, mask in shapes:
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            key = labels[y + height // 2] * changed[y + height // 2]
            (label,) = set(key) - {0}
            key_x = np.nonzero(labels == label)[1].mean()
            assert abs(key_x - (x + width / 2)) >= (keyed_shapes.MIN_DISTANCE - 0.1) * SIZE
        for _, mask in shapes:
            np.testing.assert_array_equal(crop(image, mask), crop(recoloured, mask))


def features(pixels):
    return cv2.resize(pixels, (6, 6), interpolation=cv2.INTER_AREA).ravel() / 255


def linear_accuracy(samples, labels, num_train):
    """Of one-against-all least squares with a ridge on held-out samples."""
    samples = np.column_stack([samples, np.ones(len(samples))])
    train, wanted = samples[:num_train], np.eye(3)[labels[:num_train]]
    weights = np.linalg.solve(train.T @ train + np.eye(train.shape[1]), train.T @ wanted)
    return np.mean((samples[num_train:] @ weights).argmax(1) == labels[num_train:])


def test_crops_leave_the_class_at_chance_and_rows_do_not():
    crops, rows, labels = [], [], []
    for seed in range(900):
        image, shapes = draw(seed)
        for index, mask in shapes:
            crops.append(features(crop(image, mask)))
            row = image[np.nonzero(mask)[0].min() :][: np.ptp(np.nonzero(mask)[0]) + 1]
            saturation = np.ptp(row.astype(int), axis=-1)
            rows.append(np.sort(row[saturation >= np.sort(saturation.ravel())[-40]][:40], axis=0))
            labels.append(index)
    labels = np.array(labels)
    num_train = 2 * len(labels) // 3
    tested = len(labels) - num_train
    chance, spread = 1 / 3, (2 / 9 / tested) ** 0.5
    assert abs(linear_accuracy(np.array(crops), labels, num_train) - chance) < 3 * spread
    of_rows = np.array([row.mean(axis=0) / 255 for row in rows])
    assert linear_accuracy(of_rows, labels, num_train) > 0.9


def test_other_drawing_in_the_same_folder_is_built_anew(tmp_path):
    sizes = dict(num_train=2, num_val=1, image_size=64)
    keyed_shapes.generate(tmp_path, **sizes)
    before = (tmp_path / 'train' / 'shapes_000000.jpg').read_bytes()
    write_data_set(
        tmp_path, keyed_shapes.draw_image, keyed_shapes.CLASSES, {'version': 0}, **sizes, seed=1
    )
    assert (tmp_path / 'train' / 'shapes_000000.jpg').read_bytes() != before
    keyed_shapes.generate(tmp_path, **sizes)
    assert (tmp_path / 'train' / 'shapes_000000.jpg').read_bytes() == before
