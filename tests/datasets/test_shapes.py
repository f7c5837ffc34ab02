"""The synthetic data set: reproducible, valid COCO, rebuilt exactly when it has to be."""

import hashlib

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from lesa_mmdet.datasets import generated, shapes

NUM_TRAIN, NUM_VAL = 80, 20
SMALL = {'num_train': 3, 'num_val': 2, 'image_size': 64}


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def write_times(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob('*') if path.is_file()}


def redraw(split, image_id):
    rng = np.random.default_rng([0, generated.SPLITS.index(split), image_id - 1])
    return shapes.draw_image(rng, 192)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    return shapes.generate(folder, num_train=NUM_TRAIN, num_val=NUM_VAL)


@pytest.fixture(scope='module', params=generated.SPLITS)
def split(request):
    return request.param


@pytest.fixture(scope='module')
def coco(root, split):
    return COCO(str(root / 'annotations' / f'{split}.json'))


@pytest.fixture(scope='module')
def train(root):
    return COCO(str(root / 'annotations' / 'train.json'))


def test_coco_keys_and_ids(coco, split):
    assert set(coco.dataset) == {'info', 'licenses', 'images', 'annotations', 'categories'}
    images, annotations = coco.dataset['images'], coco.dataset['annotations']
    num_images = {'train': NUM_TRAIN, 'val': NUM_VAL}[split]
    assert [image['id'] for image in images] == list(range(1, num_images + 1))
    assert [a['id'] for a in annotations] == list(range(1, len(annotations) + 1))
    assert [(c['id'], c['name']) for c in coco.dataset['categories']] == list(
        enumerate(shapes.CLASSES, start=1)
    )
    assert {a['iscrowd'] for a in annotations} == {0}


def test_image_files_have_the_announced_size(coco, root, split):
    for image in coco.dataset['images']:
        pixels = cv2.imread(str(root / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3) == (192, 192, 3)


def test_annotations_are_the_visible_masks(coco, split):
    for image_id in coco.imgs:
        _, drawn = redraw(split, image_id)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(drawn)
        for annotation, (class_index, visible) in zip(annotations, drawn, strict=True):
            assert annotation['category_id'] == class_index + 1
            decoded = coco.annToMask(annotation).astype(bool)
            assert (decoded & visible).sum() >= 0.98 * (decoded | visible).sum()
            assert annotation['area'] == visible.sum()
            rows, columns = np.nonzero(visible)
            x, y, width, height = annotation['bbox']
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
            for polygon in annotation['segmentation']:
                assert len(polygon) >= 6 and len(polygon) % 2 == 0
                assert 0 <= min(polygon) and max(polygon) <= 192


def test_written_image_is_the_drawn_one(train, root):
    drawn, _ = redraw('train', 1)
    written = cv2.imread(str(root / 'train' / train.imgs[1]['file_name']))
    assert drawn.dtype == np.uint8
    assert np.abs(drawn.astype(int) - written).mean() < 10  # what JPEG loses


def test_number_of_shapes_per_image(train):
    counts = {len(train.getAnnIds(image_id)) for image_id in train.imgs}
    assert counts == set(range(1, shapes.MAX_SHAPES + 1))


def test_every_class_and_coco_area_range_occurs(coco):
    annotations = coco.dataset['annotations']
    assert {a['category_id'] for a in annotations} == set(coco.cats)
    areas = np.array([a['area'] for a in annotations])
    assert areas.min() >= 40
    counts, _ = np.histogram(areas, [0, 32**2, 96**2, np.inf])
    assert counts.min() >= 1


def test_visible_masks_are_disjoint_and_without_holes(train):
    for image_id in train.imgs:
        masks = [mask for _, mask in redraw('train', image_id)[1]]
        assert np.sum(masks, axis=0).max() == 1
        for mask in masks:
            background = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
            assert cv2.connectedComponents(background, connectivity=4)[0] == 2


def test_occlusion_splits_shapes(train):
    assert any(len(a['segmentation']) > 1 for a in train.dataset['annotations'])


@pytest.mark.parametrize('image_size', [64, 101, 320])
def test_occlusion_occurs_within_its_limit(monkeypatch, image_size):
    candidates = []
    random_shape = shapes._random_shape

    def recorded(*args):
        candidates.append(random_shape(*args))
        return candidates[-1]

    monkeypatch.setattr(shapes, '_random_shape', recorded)
    shown = []
    for seed in range(40):
        candidates.clear()
        image, drawn = shapes.draw_image(np.random.default_rng(seed), image_size)
        assert image.shape == (image_size, image_size, 3)
        assert 1 <= len(drawn) <= shapes.MAX_SHAPES
        for class_index, visible in drawn:
            assert visible.sum() >= 40
            # Refused places are among the candidates too: the closest one is the shape.
            shown.append(
                max(
                    visible.sum() / whole.sum()
                    for candidate, whole in candidates
                    if candidate == class_index and not (visible & ~whole).any()
                )
            )
    assert min(shown) >= shapes.MIN_VISIBLE
    assert np.mean(np.array(shown) < 0.9) > 0.1


@pytest.mark.parametrize(
    ('rows', 'num_polygons'),
    [
        (['...', '.#.', '...'], 1),
        (['###', '###', '###'], 1),
        (['#..', '.#.', '..#'], 1),
        (['#.#', '#.#', '###'], 1),
        (['#.#', '#.#', '..#'], 2),
    ],
)
def test_polygons_give_back_the_mask(rows, num_polygons):
    mask = np.array([[cell == '#' for cell in row] for row in rows])
    polygons = generated.mask_to_polygons(mask)
    assert len(polygons) == num_polygons
    decoded = mask_api.decode(mask_api.merge(mask_api.frPyObjects(polygons, *mask.shape)))
    np.testing.assert_array_equal(decoded.astype(bool), mask)


def test_polygons_are_centred_on_the_pixels():
    mask = np.zeros((5, 5), bool)
    mask[3, 1] = True
    (polygon,) = generated.mask_to_polygons(mask)
    assert np.mean(np.reshape(polygon, (-1, 2)), axis=0).tolist() == [1.5, 3.5]


def test_same_arguments_give_the_same_bytes(tmp_path):
    first = digests(shapes.generate(tmp_path / 'a', **SMALL))
    second = digests(shapes.generate(str(tmp_path / 'b'), **SMALL))
    assert first == second
    images = [digest for name, digest in first.items() if name.endswith('.jpg')]
    assert len(images) == len(set(images)) == 5


def test_more_images_keep_the_first_ones(tmp_path):
    few = digests(shapes.generate(tmp_path / 'few', **SMALL))
    more = digests(shapes.generate(tmp_path / 'more', **{**SMALL, 'num_train': 5}))
    assert all(more[name] == few[name] for name in few if name.endswith('.jpg'))


def test_complete_data_set_is_left_alone(tmp_path):
    shapes.generate(tmp_path, **SMALL)
    before = write_times(tmp_path)
    assert shapes.generate(tmp_path, **SMALL) == tmp_path
    assert write_times(tmp_path) == before


@pytest.mark.parametrize(
    'lost',
    [
        ['dataset.json', 'val/shapes_000001.jpg'],
        ['train/shapes_000000.jpg'],
        ['annotations/val.json'],
    ],
)
def test_incomplete_data_set_is_repaired(tmp_path, lost):
    complete = digests(shapes.generate(tmp_path, **SMALL))
    for name in lost:
        (tmp_path / name).unlink()
    shapes.generate(tmp_path, **SMALL)
    assert digests(tmp_path) == complete


def test_interrupted_rebuild_is_not_taken_for_complete(tmp_path, monkeypatch):
    shapes.generate(tmp_path, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(shapes, '_random_shape', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shapes.generate(tmp_path, **SMALL, seed=1)
    assert not (tmp_path / 'dataset.json').exists()
    shapes.generate(tmp_path, **SMALL, seed=1)
    expected = digests(shapes.generate(tmp_path.with_name('expected'), **SMALL, seed=1))
    assert digests(tmp_path) == expected


@pytest.mark.parametrize(
    'change', [{'num_train': 2}, {'num_val': 3}, {'image_size': 80}, {'seed': 1}]
)
def test_other_arguments_rebuild_and_spare_unrelated_files(tmp_path, change):
    shapes.generate(tmp_path, **SMALL)
    unrelated = [tmp_path / 'notes.txt', tmp_path / 'train' / 'mine.jpg']
    for path in unrelated:
        path.write_text('keep', encoding='utf-8')
    shapes.generate(tmp_path, **{**SMALL, **change})
    assert [path.read_text(encoding='utf-8') for path in unrelated] == ['keep', 'keep']
    for path in unrelated:
        path.unlink()
    fresh = shapes.generate(
        tmp_path.with_name('fresh_' + next(iter(change))), **{**SMALL, **change}
    )
    assert digests(tmp_path) == digests(fresh)


@pytest.mark.parametrize(
    ('name', 'value', 'minimum'),
    [
        ('num_train', 0, 1),
        ('num_val', -1, 1),
        ('image_size', 63, 64),
        ('image_size', 192.5, 64),
        ('seed', -1, 0),
    ],
)
def test_bad_input(tmp_path, name, value, minimum):
    with pytest.raises(ValueError, match=f'{name} is {value}, .* at least {minimum}'):
        shapes.generate(tmp_path / 'data', **{**SMALL, name: value})
    assert not (tmp_path / 'data').exists()
