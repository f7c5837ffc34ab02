"""tools/check_dataset.py finds what is put into a clean data set."""

import os
from pathlib import Path

import pytest
from PIL import Image

from lesa_mmdet.datasets.check import check_dataset, find_splits
from lesa_mmdet.datasets.problems import Problem


def test_nothing_is_wrong(data, run):
    root, _ = data
    out = run(
        'tools/check_dataset.py', root, '--split', 'annotations/instances_train.json', 'train'
    )
    assert 'images of instances_train.json in train/' in out and out.endswith('0 problems\n')
    report = check_dataset(root, need_maps=False)
    assert not report.problems and not report.is_harmful
    assert report.counts['images of instances_val.json in val/'] == 2
    assert report.counts['maps of instances_train.json in stuffthingmaps/train/'] == 3
    missing = check_dataset(root, need_maps=True).problems
    assert list(missing) == [Problem.MAP_MISSING] and len(missing[Problem.MAP_MISSING]) == 2


def change_object(**changes):
    """An edit of the first object."""
    return lambda content: content['annotations'][0].update(changes)


@pytest.mark.parametrize(
    'change, kind, harmful',
    [
        (change_object(segmentation=[]), Problem.MASK_MISSING, False),
        (change_object(segmentation=[[5, 5, 5, 5, 5, 5]]), Problem.MASK_EMPTY, False),
        (change_object(segmentation={'size': [64, 64], 'counts': [3]}), Problem.MASK_BROKEN, True),
        (change_object(bbox=[3, 3, 10, 0.5]), Problem.BOX_TINY, False),
        (change_object(bbox=[60, 3, 10, 5]), Problem.BOX_OUTSIDE, False),
        (change_object(bbox=[60, 3, None, 5]), Problem.BOX_BROKEN, True),
        (change_object(bbox=[1, 2, 3]), Problem.BOX_BROKEN, True),
        (change_object(area=0), Problem.AREA_EMPTY, False),
        (change_object(category_id=99), Problem.UNKNOWN_CATEGORY, True),
        (change_object(image_id=99), Problem.UNKNOWN_IMAGE, True),
        (
            lambda content: content['annotations'].append(content['annotations'][0]),
            Problem.OBJECT_ID_TWICE,
            True,
        ),
        (
            lambda content: content['images'].append(content['images'][0]),
            Problem.IMAGE_ID_TWICE,
            True,
        ),
        (lambda content: content['images'][0].update(width=65), Problem.IMAGE_SIZE, True),
        (lambda content: content.pop('images'), Problem.FILE_UNREADABLE, True),
        (lambda content: content['images'][0].pop('height'), Problem.FILE_UNREADABLE, True),
    ],
)
def test_annotation_problems(change, kind, harmful, data):
    root, edit = data
    edit(change)
    report = check_dataset(root)
    assert kind in report.problems and report.is_harmful == harmful
    assert f'{kind.title}: {len(report.problems[kind])} (training: ' in report.to_text()


def every(part, **changes):
    return lambda content: [entry.update(changes) for entry in content[part]]


def make_deep(content):
    node = []
    for _ in range(500):
        node = [node]
    content['annotations'][0]['segmentation'] = node


HUGE = 10**400
RLE = {'size': [64, 64], 'counts': [HUGE, 64]}


@pytest.mark.parametrize(
    'change, kind, sentence',
    [
        (every('images', width=HUGE), 'FILE_UNREADABLE', 'width is a number of 1,329 bits, but'),
        (every('images', width=10**9), 'FILE_UNREADABLE', 'width is 1000000000, but has to be a'),
        (every('images', height=-64), 'FILE_UNREADABLE', 'height is -64, but has to be a whole'),
        (every('images', height=0), 'FILE_UNREADABLE', 'height is 0, but'),
        (every('images', height=True), 'FILE_UNREADABLE', 'height is True, but'),
        (every('images', height=64.0), 'FILE_UNREADABLE', 'height is 64.0, but'),
        (every('images', id=[1]), 'FILE_UNREADABLE', 'id is [1], but has to be a number or text'),
        (every('images', id=float('nan')), 'IMAGE_ID_TWICE', 'id nan'),
        (every('images', id=HUGE), 'IMAGE_ID_TWICE', 'id a number of 1,329 bits'),
        (every('images', file_name='\ud800'), 'FILE_UNREADABLE', 'file_name is \\ud800, but'),
        (every('images', file_name=7), 'FILE_UNREADABLE', 'file_name is 7, but has to be text'),
        (every('categories', name={'a': 1}), 'FILE_UNREADABLE', "name is {'a': 1}, but has to be"),
        (every('annotations', image_id={}), 'FILE_UNREADABLE', 'image_id is {}, but'),
        (lambda c: c.update(images={}), 'FILE_UNREADABLE', 'images is {}, but has to be a list'),
        (lambda c: c.update(images=[7]), 'FILE_UNREADABLE', 'images[0] is 7, but has to be a dict'),
        (lambda c: c.update(annotations=7), 'FILE_UNREADABLE', 'annotations is 7, but'),
        (lambda c: c.pop('categories'), 'FILE_UNREADABLE', 'the file has no categories'),
        (change_object(bbox=[HUGE, 1, 1, 1]), 'BOX_BROKEN', 'a number of 1,329 bits'),
        (change_object(bbox=[1, 1, 10**30, 1]), 'BOX_BROKEN', 'must be [x, y, width, height]'),
        (change_object(bbox=[1] * 100_000), 'BOX_BROKEN', '[1, 1, 1, 1, ...], but must be'),
        (change_object(bbox='1234'), 'BOX_BROKEN', 'bbox 1234, but must be'),
        (change_object(area=HUGE), 'AREA_EMPTY', 'area a number of 1,329 bits'),
        (change_object(area='\x1b[2J'), 'AREA_EMPTY', 'area \\x1b[2J'),
        (change_object(iscrowd=['a' * 10**6]), 'ISCROWD_MISSING', "iscrowd is ['aaaa"),
        (change_object(segmentation=RLE), 'MASK_BROKEN', 'that are not whole numbers of pixels'),
        (change_object(segmentation={**RLE, 'counts': [1e30]}), 'MASK_BROKEN', 'not whole numbers'),
        (change_object(segmentation={**RLE, 'counts': [2**39] * 8}), 'MASK_BROKEN', 'run lengths'),
        (
            change_object(segmentation={**RLE, 'size': [HUGE]}),
            'MASK_BROKEN',
            'for size [a number of',
        ),
        (change_object(segmentation={**RLE, 'counts': {}}), 'MASK_BROKEN', 'run lengths of type'),
        (change_object(segmentation=[[HUGE] * 6]), 'MASK_BROKEN', 'something else than numbers'),
        (change_object(segmentation=[['1'] * 6]), 'MASK_BROKEN', 'something else than numbers'),
        (change_object(segmentation=[[None] * 6]), 'MASK_BROKEN', 'something else than numbers'),
        (change_object(segmentation=[[[1, 2]] * 6]), 'MASK_BROKEN', 'something else than numbers'),
        (change_object(segmentation=[[1e300] * 6]), 'MASK_BROKEN', 'coordinates beyond'),
        (change_object(segmentation=7), 'MASK_BROKEN', 'neither polygons nor run lengths'),
        (make_deep, 'MASK_MISSING', 'no polygon of three points'),
        (change_object(category_id='a\n\x1b[31m'), 'UNKNOWN_CATEGORY', 'category a\\n\\x1b[31m'),
    ],
    ids=range(37),
)
def test_strangers_annotations(change, kind, sentence, data):
    root, edit = data
    edit(change)
    report = check_dataset(root)
    found = report.problems[Problem[kind]]
    assert any(sentence in text for text in found), report.problems
    assert all(line.isprintable() and len(line) < 400 for line in report.to_text().splitlines())


@pytest.mark.parametrize(
    'content, sentence',
    [
        (b'[' * 100_000, 'is no JSON, or it is truncated: nested too deep'),
        (b'{"a":' * 100_000, 'nested too deep'),
        (b'9' * 5000, 'is no JSON'),
        (b'', 'is no JSON'),
        (b'\xff\xfe{}', 'is no JSON'),
        (b'null', 'the file is None, but has to be a dict'),
        (b'[]', 'the file is [], but has to be a dict'),
        (b'NaN', 'the file is nan, but has to be a dict'),
    ],
    ids=range(8),
)
def test_annotation_files_that_are_none(content, sentence, data):
    root, _ = data
    (root / 'annotations' / 'instances_train.json').write_bytes(content)
    found = check_dataset(root).problems[Problem.FILE_UNREADABLE]
    assert len(found) == 1 and sentence in found[0] and len(found[0]) < 400


@pytest.mark.parametrize('folder', ['annotations', 'train', 'stuffthingmaps/train'])
def test_pipes_are_not_waited_for(folder, data):
    root, _ = data
    path = next(iter(sorted((root / folder).glob('*train.json' if folder[0] == 'a' else '*'))))
    path.unlink()
    os.mkfifo(path)
    texts = [text for found in check_dataset(root).problems.values() for text in found]
    assert any('is a named pipe, but has to be a file' in text for text in texts), texts


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def turn(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.crop((0, 0, 64, 60)).save(path, exif=exif)


@pytest.mark.parametrize(
    'folder, damage, kind',
    [
        ('train', Path.unlink, Problem.IMAGE_MISSING),
        ('train', truncate, Problem.IMAGE_UNREADABLE),
        (
            'train',
            lambda path: path.write_text('<html>', encoding='utf-8'),
            Problem.IMAGE_UNREADABLE,
        ),
        ('train', lambda path: path.write_bytes(b''), Problem.IMAGE_UNREADABLE),
        ('train', turn, Problem.IMAGE_SIZE),
        ('stuffthingmaps/train', truncate, Problem.MAP_UNREADABLE),
        (
            'stuffthingmaps/train',
            lambda path: Image.new('L', (64, 60)).save(path),
            Problem.MAP_SIZE,
        ),
        (
            'stuffthingmaps/train',
            lambda path: Image.new('L', (64, 64), 183).save(path),
            Problem.MAP_LABELS,
        ),
    ],
)
def test_file_problems(folder, damage, kind, data):
    root, _ = data
    path = sorted((root / folder).iterdir())[1]
    damage(path)
    report = check_dataset(root)
    assert list(report.problems) == [kind] and report.is_harmful
    assert len(report.problems[kind]) == 1 and str(path) in report.problems[kind][0]


def test_exit_codes_and_first_problems(data, run):
    root, edit = data
    edit(lambda content: [entry.update(area=0) for entry in content['annotations']])
    out = run('tools/check_dataset.py', root, succeeds=False)
    assert 'area not positive' in out and 'the object is left out' in out
    assert 'all of which a training handles' in out
    run('tools/check_dataset.py', root, '--allow-handled')
    edit(lambda content: [entry.update(category_id=0) for entry in content['annotations']])
    out = run('tools/check_dataset.py', root, '--allow-handled', succeeds=False)
    assert 'unknown category' in out


def test_no_annotations(data):
    root, _ = data
    with pytest.raises(FileNotFoundError, match='has no annotations/instances_.*--split'):
        check_dataset(root / 'train')


def test_splits_are_found(tmp_path):
    (tmp_path / 'annotations').mkdir()
    for name in ('train2017', 'test2017'):
        (tmp_path / name).mkdir()
    names = {
        'instances_train2017_mini.json': 'train2017',
        'instances_val2017.json': 'val2017',
        'image_info_test-dev2017.json': 'test2017',
    }
    for name in (*names, 'captions_train2017.json'):
        (tmp_path / 'annotations' / name).touch()
    found = {ann_file.name: folder for ann_file, folder in find_splits(tmp_path)}
    assert found == {name: tmp_path / folder for name, folder in names.items()}


def test_coco(coco_root):
    report = check_dataset(coco_root)
    assert not report.problems
    assert report.counts['images of instances_train2017_mini.json in train2017/'] == 343
    assert report.counts['objects of instances_val2017_mini.json'] == 1252
