"""tools/check_dataset.py finds what is put into a clean data set."""

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
