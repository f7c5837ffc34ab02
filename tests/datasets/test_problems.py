"""What check_dataset says a training makes of a problem is what a training makes of it."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lesa_mmdet.datasets.check import check_dataset
from lesa_mmdet.datasets.problems import Problem
from lesa_mmdet.upstream import DATASETS

from helpers.bad_input import Place
from helpers.paths import ROOT

ANN_FILE = 'annotations/instances_train.json'
HTC = ROOT / 'configs' / 'htc' / 'htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280.py'


class Watch(Hook):
    """Notes what the model is given: paths, boxes, labels and masks by image."""

    def __init__(self):
        self.images, self.iterations = {}, 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.iterations += 1
        for sample in data_batch['data_samples']:
            truth = sample.gt_instances
            self.images[sample.img_path.rpartition('/')[2]] = dict(
                boxes=truth.bboxes.tensor.clone().numpy(),
                masks=truth.masks.to_ndarray(),
                flip=sample.flip,
            )


@pytest.fixture
def train(tmp_path):
    """Trains an epoch on changed data: what it ended with, and what it was given."""
    place = Place(tmp_path)
    runs = iter(range(10))

    def run(change=None, split='train', files=lambda root: None, **dataset):
        root = place.data(change, split)
        files(root)
        cfg = Config.fromfile(
            place.config(lambda cfg: cfg.train_dataloader.dataset.update(dataset))
        )
        cfg.experiment_name = f'{tmp_path.name}-{next(runs)}'
        for step in cfg.train_dataloader.dataset.pipeline:
            if step.type == 'RandomFlip':
                step.prob = 0.0
        init_default_scope('mmdet')
        torch.manual_seed(0)
        watch, error = Watch(), None
        try:
            runner = Runner.from_cfg(cfg)
            runner.register_hook(watch)
            runner.train()
        except Exception as raised:
            error = raised
        return error, watch

    yield place, run
    init_default_scope('mmdet')


def objects_of(place, index=0):
    """Number of objects of an image as they were generated."""
    content = json.loads(
        (place / 'data' / 'annotations' / 'train.json').read_text(encoding='utf-8')
    )
    image = content['images'][index]
    return sum(entry['image_id'] == image['id'] for entry in content['annotations'])


def first(**changes):
    """An edit of the first object."""
    return lambda content: content['annotations'][0].update(changes)


def every(**changes):
    """An edit of all objects."""
    return lambda content: [entry.update(changes) for entry in content['annotations']]


def without(key):
    """An edit that drops a key of all objects."""
    return lambda content: [entry.pop(key) for entry in content['annotations']]


def to_corners(content):
    for entry in content['annotations']:
        x, y, w, h = entry['bbox']
        entry['bbox'] = [x, y, x + w, y + h]


DOES_NOT_START = [
    (Problem.FILE_UNREADABLE, lambda content: content.pop('categories')),
    (Problem.FILE_UNREADABLE, lambda content: content['images'][0].pop('height')),
    (Problem.NO_IMAGES, lambda content: content.update(images=[])),
    (Problem.NO_OBJECTS, lambda content: content.update(annotations=[])),
    (Problem.NO_OBJECTS, lambda content: content.pop('annotations')),
    (Problem.ONLY_CROWDS, every(iscrowd=1)),
    (Problem.NO_MASKS, without('segmentation')),
    (Problem.OBJECT_ID_TWICE, lambda c: c['annotations'].append(copy.copy(c['annotations'][0]))),
    (
        Problem.OBJECT_ID_TWICE,
        lambda c: c['annotations'][0].update(id=float(len(c['annotations']))),
    ),
    (Problem.CATEGORY_TWICE, lambda content: content['categories'][1].update(name='circle')),
    (Problem.CATEGORY_TWICE, lambda content: content['categories'][1].update(id=1)),
    (Problem.AREA_MISSING, without('area')),
    (Problem.AREA_MISSING, first(area=None)),
    (Problem.BOX_BROKEN, first(bbox=[1, 2, 3])),
    (Problem.BOX_BROKEN, first(bbox=[1, 2, None, 4])),
    (Problem.BOX_BROKEN, first(bbox=[1, 2, float('nan'), 4])),
    (Problem.BOX_OF_CORNERS, to_corners),
]


@pytest.mark.parametrize('problem, change', DOES_NOT_START)
def test_does_not_start(problem, change, train):
    place, run = train
    error, watch = run(change)
    assert isinstance(error, ValueError) and str(place / 'data' / ANN_FILE) in str(error)
    assert watch.iterations == 0
    assert problem in check_dataset(place / 'data').problems
    assert problem.harmful and 'not start' in problem.effect


LEFT_OUT = [
    (Problem.UNKNOWN_CATEGORY, first(category_id=99)),
    (Problem.UNKNOWN_IMAGE, first(image_id=99)),
    (Problem.BOX_TINY, first(bbox=[3, 3, 10, 0.5])),
    (Problem.AREA_EMPTY, first(area=0)),
    (Problem.AREA_EMPTY, first(area=-3)),
    (Problem.MASK_MISSING, first(segmentation=[])),
]


@pytest.mark.parametrize('problem, change', LEFT_OUT)
def test_object_is_left_out(problem, change, train):
    place, run = train
    error, watch = run(change)
    assert error is None
    boxes = watch.images['shapes_000000.jpg']['boxes']
    assert len(boxes) == objects_of(place) - 1
    assert problem in check_dataset(place / 'data').problems
    assert 'the object is left out' in problem.effect


def test_box_is_cut(train):
    place, run = train
    error, watch = run(first(bbox=[40, 40, 50, 50]))
    assert error is None
    assert watch.images['shapes_000000.jpg']['boxes'][0].tolist() == [40, 40, 64, 64]
    assert list(check_dataset(place / 'data').problems) == [Problem.BOX_OUTSIDE]


def test_empty_mask_is_learnt(train):
    place, run = train
    error, watch = run(first(segmentation=[[5, 5, 5, 5, 5, 5]]))
    assert error is None
    given = watch.images['shapes_000000.jpg']
    assert len(given['boxes']) == objects_of(place) and not given['masks'][0].any()
    assert list(check_dataset(place / 'data').problems) == [Problem.MASK_EMPTY]


def test_one_box_of_corners_is_learnt_wrong(train):
    place, run = train
    content = json.loads((place.data() / ANN_FILE).read_text(encoding='utf-8'))
    x, y, w, h = content['annotations'][0]['bbox']
    error, watch = run(first(bbox=[x, y, x + w, y + h]))
    right = watch.images['shapes_000000.jpg']['boxes'][0]
    assert error is None and right.tolist() == [x, y, min(64, 2 * x + w), min(64, 2 * y + h)]
    assert Problem.BOX_OF_CORNERS in check_dataset(place / 'data').problems


def test_missing_iscrowd_trains_but_is_not_evaluated(train):
    place, run = train
    error, _ = run(without('iscrowd'))
    assert error is None
    assert list(check_dataset(place / 'data').problems) == [Problem.ISCROWD_MISSING]
    error, watch = run(without('iscrowd'), split='val')
    assert isinstance(error, ValueError) and 'has no iscrowd' in str(error)
    assert watch.iterations == 0


def rename(key, to_id):
    """An edit of the ids of all images or categories, and of what refers to them."""

    def edit(content):
        of = {'images': 'image_id', 'categories': 'category_id'}[key]
        new = {entry['id']: to_id(index) for index, entry in enumerate(content[key])}
        for entry in content[key]:
            entry['id'] = new[entry['id']]
        for entry in content['annotations']:
            entry[of] = new[entry[of]]

    return edit


@pytest.mark.parametrize('key', ['images', 'categories'])
@pytest.mark.parametrize(
    'to_id',
    [
        lambda i: f'number {i}',
        str,
        lambda i: i,
        lambda i: i + 0.5,
        lambda i: [False, True][i] if i < 2 else i,
        lambda i: -i,
        lambda i: 10**400 + i,
    ],
)
def test_ids_of_images_and_categories_may_be_texts_and_numbers(key, to_id, train):
    place, run = train
    error, watch = run(rename(key, to_id), split='val')
    assert error is None and watch.iterations == 2
    root = place / 'data'
    assert not check_dataset(root).problems


@pytest.mark.parametrize(
    'change',
    [
        rename('images', lambda index: index or 'first'),
        rename('images', lambda index: index or None),
        rename('categories', lambda index: index or 'first'),
        first(id='first'),
        first(id=''),
        first(id=10**400),
    ],
)
def test_ids_that_evaluation_cannot_use_train_but_are_not_evaluated(change, train):
    place, run = train
    error, _ = run(change)
    assert error is None
    assert list(check_dataset(place / 'data').problems) == [Problem.ID_OF_NO_USE]


@pytest.mark.parametrize(
    'change',
    [
        lambda content: [
            rename('images', lambda index: index or 'first')(content),
            content['images'].append(dict(content['images'][0], id=1, file_name='b.jpg')),
        ],
        lambda content: [
            rename('images', lambda index: index or None)(content),
            content['images'].append(dict(content['images'][0], id=1, file_name='b.jpg')),
        ],
        rename('categories', lambda index: index or 'first'),
        first(id='first'),
        first(id=10**400),
    ],
)
def test_and_evaluation_does_not_start(change, train):
    place, run = train
    error, watch = run(change, split='val')
    assert isinstance(error, ValueError) and 'pycocotools' in str(error)
    assert watch.iterations == 0
    assert Problem.ID_OF_NO_USE in check_dataset(place / 'data').problems


@pytest.mark.parametrize('zero', [0, 0.0, '0', False])
def test_id_0_trains_and_evaluation_says_that_it_is_never_found(zero, train, told):
    place, run = train
    error, _ = run(first(id=zero))
    assert error is None and not any('takes id 0 for nothing found' in line for line in told)
    assert list(check_dataset(place / 'data').problems) == [Problem.OBJECT_ID_ZERO]
    error, _ = run(first(id=zero), split='val')
    assert error is None
    (said,) = (line for line in told if 'takes id 0 for nothing found' in line)
    assert f'instances_val.json: annotation {zero!r} of image 1 has the id 0' in said


@pytest.mark.parametrize('odd', [True, None, -3, 0.5, 10**20, float('nan')])
def test_any_other_number_is_an_id(odd, train):
    place, run = train
    error, _ = run(first(id=odd), split='val')
    assert error is None
    assert not check_dataset(place / 'data').problems


@pytest.mark.parametrize('first', [1, 0, -9, None, True])
def test_pycocotools_does_not_match_id_0_alone(first):
    """One object, found twice: the second detection is wrong."""
    truth = COCO()
    shape = dict(image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81)
    images, categories = [dict(id=1, height=9, width=9)], [dict(id=1, name='one')]
    objects = [dict(shape, id=first, iscrowd=0)]
    truth.dataset = dict(images=images, categories=categories, annotations=objects)
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes([dict(shape, score=s) for s in (0.9, 0.8)]), 'bbox')
    evaluation.evaluate()
    matches = evaluation.evalImgs[0]['dtMatches'][0]
    assert list(map(bool, matches)) == [first != 0, False]


def test_ids_and_files_twice(train):
    place, run = train
    error, watch = run(lambda content: content['images'][1].update(id=content['images'][0]['id']))
    assert error is None and list(watch.images) == ['shapes_000001.jpg']  # with the other's objects
    assert len(watch.images['shapes_000001.jpg']['boxes']) == objects_of(place)
    assert Problem.IMAGE_ID_TWICE in check_dataset(place / 'data').problems


def test_image_file_twice(train):
    place, run = train
    error, watch = run(
        lambda content: content['images'][1].update(file_name=content['images'][0]['file_name'])
    )
    assert error is None and watch.iterations == 2 and list(watch.images) == ['shapes_000000.jpg']
    assert list(check_dataset(place / 'data').problems) == [Problem.IMAGE_FILE_TWICE]


@pytest.mark.parametrize(
    'segmentation, stops',
    [
        ({'size': [64, 64], 'counts': [1, 10_000]}, True),
        ([[float(v) for v in (-9e5, 0, 9e5, 0, 9e5, 9e5)]], False),
    ],
)
def test_broken_mask(segmentation, stops, train):
    place, run = train
    error, _ = run(first(segmentation=segmentation))
    assert (error is not None) == stops
    assert list(check_dataset(place / 'data').problems) == [Problem.MASK_BROKEN]


@pytest.mark.parametrize(
    'problem, damage',
    [
        (Problem.IMAGE_MISSING, lambda path: path.unlink(missing_ok=True)),
        (Problem.IMAGE_UNREADABLE, lambda path: path.write_bytes(path.read_bytes()[:-20])),
    ],
)
def test_unreadable_image_stops_unless_skipped(problem, damage, train):
    place, run = train
    image = place / 'data' / 'train' / 'shapes_000000.jpg'
    damaged = dict(files=lambda root: damage(image))
    error, _ = run(**damaged)
    assert f'{image} cannot be read' in str(error)
    assert list(check_dataset(place / 'data').problems) == [problem]
    place.data()
    damage(image)
    error, watch = run(skip_unreadable=True, **damaged)
    assert error is None and list(watch.images) == ['shapes_000001.jpg']


def test_image_of_another_size(train):
    place, run = train
    content = json.loads((place.data() / ANN_FILE).read_text(encoding='utf-8'))
    x, y, w, h = content['annotations'][0]['bbox']
    image = place / 'data' / 'train' / 'shapes_000000.jpg'
    error, watch = run(files=lambda root: Image.new('RGB', (128, 128)).save(image))
    assert error is None
    learnt = watch.images['shapes_000000.jpg']['boxes'][0]
    np.testing.assert_allclose(learnt, [x / 2, y / 2, (x + w) / 2, (y + h) / 2])
    assert list(check_dataset(place / 'data').problems) == [Problem.IMAGE_SIZE]


def test_fewer_images_than_coco_are_learnt_as_they_are(train):
    place, run = train
    error, watch = run(lambda content: content['images'].pop())
    assert error is None and watch.iterations == 1
    annotations = place / 'data' / 'annotations'
    (annotations / 'instances_train.json').rename(annotations / 'instances_train2017.json')
    assert Problem.COUNTS_DIFFER in check_dataset(place / 'data').problems


@pytest.mark.parametrize(
    'problem, damage',
    [
        (Problem.MAP_MISSING, lambda path: path.unlink()),
        (Problem.MAP_UNREADABLE, lambda path: path.write_bytes(path.read_bytes()[:-20])),
        (Problem.MAP_SIZE, lambda path: Image.new('L', (32, 64)).save(path)),
        (Problem.MAP_LABELS, lambda path: Image.new('L', (64, 64), 183).save(path)),
    ],
)
def test_maps(problem, damage, train):
    """What the data set and the semantic head of HTC make of its maps."""
    place, _ = train
    root = place.data()
    maps = root / 'stuffthingmaps' / 'train'
    maps.mkdir(parents=True)
    for name in ('shapes_000000.png', 'shapes_000001.png'):
        Image.fromarray(np.full((64, 64), 3, np.uint8)).save(maps / name)
    damage(maps / 'shapes_000000.png')
    assert problem in check_dataset(root, need_maps=True).problems
    cfg = Config.fromfile(HTC)
    cfg.train_dataloader.dataset.update(
        data_root=f'{root}/',
        ann_file=ANN_FILE,
        data_prefix=dict(img='train/', seg='stuffthingmaps/train/'),
        metainfo=dict(classes=Config.fromfile(place.config()).metainfo.classes),
    )
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if problem in (Problem.MAP_MISSING, Problem.MAP_UNREADABLE):
        with pytest.raises((RuntimeError, ValueError), match=r'shapes_000000\.jpg'):
            dataset[0]
        return
    sample = dataset[0]['data_samples']
    labels = sample.gt_sem_seg.sem_seg
    if problem is Problem.MAP_SIZE:  # drawn out, or not, like an image of the right size
        assert labels.shape[-2:] != sample.img_shape or (labels == 0).all()
    else:
        with pytest.raises(IndexError, match='183'):
            torch.nn.functional.cross_entropy(torch.rand(1, 183, 4, 4), labels[:, :4, :4].long())


def test_every_problem_is_tested():
    text = (ROOT / 'tests' / 'datasets' / 'test_problems.py').read_text(encoding='utf-8')
    assert [p.name for p in Problem if f'Problem.{p.name}' not in text] == []
