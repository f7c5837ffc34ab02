"""tools/crop_coco.py cuts what the annotations say, once, and goes on after an interruption."""

import json
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lesa_mmdet.datasets import crops
from lesa_mmdet.datasets.crops import cut_crops, find_train_and_val, find_window, measure_colors
from lesa_mmdet.datasets.shapes import CLASSES

from helpers.shapes import editable_copy, generate_as_coco


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Root of generated images, their annotations under COCO's names."""
    folder = tmp_path_factory.mktemp('shapes')
    return generate_as_coco(folder, num_train=20, num_val=6, image_size=128)


@pytest.fixture
def edited(shapes, tmp_path):
    """A copy of it, and a function that edits the annotations of a split."""
    return editable_copy(shapes, tmp_path / 'edited')


def cut(root, out, **options):
    return cut_crops(find_train_and_val(root), out, **{'classes': 6, 'min_size': 20, **options})


def read(root, split='train'):
    return json.loads(
        (root / 'annotations' / f'instances_{split}.json').read_text(encoding='utf-8')
    )


def files(folder):
    """Content of all files below a folder by their relative paths."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_crops_show_the_objects(shapes, tmp_path):
    counts = cut(shapes, tmp_path / 'crops', context=0)
    number = 0
    for split in ('train', 'val'):
        content = read(shapes, split)
        names = {image['id']: image['file_name'] for image in content['images']}
        for entry in content['annotations']:
            x, y, w, h = map(int, entry['bbox'])
            image = names[entry['image_id']]
            name = f'{image[:-4]}_{entry["id"]}.jpg'
            path = tmp_path / 'crops' / split / CLASSES[entry['category_id'] - 1] / name
            assert path.is_file() == (min(w, h) >= 20)
            if path.is_file():
                source = cv2.imread(str(shapes / split / image))[y : y + h, x : x + w]
                quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
                assert path.read_bytes() == cv2.imencode('.jpg', source, quality)[1].tobytes()
                number += 1
    assert number == sum(sum(of_split.values()) for of_split in counts.values())
    assert number == len(files(tmp_path / 'crops')) - 1


@st.composite
def boxes(draw):
    width, height = draw(st.integers(20, 700)), draw(st.integers(20, 700))
    x, y = (draw(st.floats(0, length - 1.5)) for length in (width, height))
    w, h = draw(st.floats(1, width - x)), draw(st.floats(1, height - y))
    return (x, y, w, h), (width, height)


@given(boxes(), st.floats(0, 2), st.booleans())
@example(((0.0, 1.9999999999999998, 1.0, 1.0), (20, 20)), 0.0, False)
def test_window(box_in_image, context, square):
    (x, y, w, h), (width, height) = box_in_image
    left, top, right, bottom = find_window((x, y, w, h), (width, height), context, square)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    # The whole object, but for a pixel that a border cuts.
    assert left <= x and top <= y and right >= x + w - 1 and bottom >= y + h - 1
    wanted = np.array([w, h]) * (1 + 2 * context)
    if square:
        wanted[:] = wanted.max()
        sizes = (min(np.ceil(wanted[0]), width), min(np.ceil(wanted[1]), height))
        assert (right - left, bottom - top) == sizes
    else:
        for start, end, low, length, limit in (
            (left, right, x, w, width),
            (top, bottom, y, h, height),
        ):
            assert abs(start - max(0, low - context * length)) <= 1
            assert abs(end - min(limit, low + (1 + context) * length)) <= 1


def test_crowds_and_small_objects_are_left_out(edited, tmp_path):
    root, edit = edited
    before = cut(root, tmp_path / 'before')['train']
    first = next(e for e in read(root)['annotations'] if min(e['bbox'][2:]) >= 20)

    def change(content):
        entry = next(e for e in content['annotations'] if e['id'] == first['id'])
        entry['iscrowd'] = 1
        # A box counts as far as the image shows it.
        x, y, w, h = next(
            e for e in content['annotations'] if e['id'] > first['id'] and min(e['bbox'][2:]) >= 20
        )['bbox']
        content['annotations'].append(
            {**entry, 'id': 10_000, 'iscrowd': 0, 'bbox': [128 - 19, 0, 60, 60]}
        )

    edit(change)
    after = cut(root, tmp_path / 'after')['train']
    name = CLASSES[first['category_id'] - 1]
    assert after == {**before, name: before[name] - 1}


def test_classes_with_most_objects(edited, tmp_path):
    root, _ = edited
    every = cut(root, tmp_path / 'every')['train']
    three = cut(root, tmp_path / 'three', classes=3)
    most = sorted(every, key=every.get, reverse=True)[:3]
    assert sorted(every[name] for name in three['train']) == sorted(every[name] for name in most)
    assert three['train'].keys() == three['val'].keys()
    named = cut(root, tmp_path / 'named', classes=['star', 'circle'])
    assert list(named['train']) == ['star', 'circle']
    assert named['train']['star'] == every['star']


def test_a_class_without_objects_in_val_has_a_folder(edited, tmp_path):
    """The labels of an ImageFolder are the places of its folders: all splits need the same."""
    root, edit = edited

    def remove_stars(content):
        star = CLASSES.index('star') + 1
        content['annotations'] = [e for e in content['annotations'] if e['category_id'] != star]

    edit(remove_stars, split='val')
    assert cut(root, tmp_path / 'crops')['val']['star'] == 0
    folders = [sorted(p.name for p in (tmp_path / 'crops' / s).iterdir()) for s in ('train', 'val')]
    assert folders == [sorted(CLASSES)] * 2


def test_max_per_class(shapes, tmp_path):
    every = cut(shapes, tmp_path / 'every')
    few = cut(shapes, tmp_path / 'few', max_per_class=2)
    assert few == {
        split: {name: min(number, 2) for name, number in of_split.items()}
        for split, of_split in every.items()
    }
    kept, all_ = files(tmp_path / 'few'), files(tmp_path / 'every')
    assert all(all_[path] == content for path, content in kept.items() if path.suffix == '.jpg')


def test_a_run_that_was_interrupted_goes_on(shapes, tmp_path, monkeypatch):
    whole, out = tmp_path / 'whole', tmp_path / 'crops'
    counts = cut(shapes, whole)
    replace, written = crops.os.replace, []

    def interrupt(source, target):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(target)
        replace(source, target)

    monkeypatch.setattr(crops.os, 'replace', interrupt)
    with pytest.raises(KeyboardInterrupt):
        cut(shapes, out)
    assert len(files(out)) == 7 and not list(out.rglob('*.part'))
    monkeypatch.undo()

    first = min(out.rglob('*.jpg'))
    first.with_name(f'{first.name}.part').write_bytes(b'cut')  # of a killed run
    first.unlink()
    there = {path: path.stat().st_mtime_ns for path in out.rglob('*.jpg')}
    assert cut(shapes, out) == counts
    assert files(out) == files(whole)
    assert there == {path: path.stat().st_mtime_ns for path in there}

    monkeypatch.setattr(crops.cv2, 'imread', None)  # what is there is not cut again
    assert cut(shapes, out) == counts


def test_colors(tmp_path):
    for name, rgb in (('a', (10, 20, 30)), ('b', (50, 20, 110))):
        (tmp_path / name).mkdir()
        size = (8, 8) if name == 'a' else (40, 16)  # each counts the same
        cv2.imwrite(str(tmp_path / name / '1.jpg'), np.full((*size, 3), rgb[::-1], np.uint8))
    mean, std = measure_colors(tmp_path)
    assert mean == pytest.approx([30, 20, 70], abs=1)
    assert std == pytest.approx([20, 0, 40], abs=1)


class TestBadInput:
    def test_other_options(self, shapes, tmp_path):
        cut(shapes, tmp_path / 'crops')
        with pytest.raises(FileExistsError, match='cut in another way, see .*crops.json: delete'):
            cut(shapes, tmp_path / 'crops', min_size=24)

    def test_folder_of_others(self, shapes, tmp_path):
        (tmp_path / 'mine').mkdir()
        (tmp_path / 'mine' / 'file').touch()
        with pytest.raises(FileExistsError, match='mine exists, but not as a folder of crops'):
            cut(shapes, tmp_path / 'mine')
        assert len(files(tmp_path / 'mine')) == 1

    @pytest.mark.parametrize(
        'options, message',
        [
            ({'classes': 7}, '7 classes are asked for, but there are 6 in .*_train.json, with'),
            ({'min_size': 500}, '6 classes are asked for, but there are 0 in .*at least 500 pix'),
            ({'classes': ['star', 'sun']}, "unknown class 'sun'; there are: circle, square"),
            ({'classes': ['star'], 'min_size': 500}, "class 'star' has no objects in"),
            ({'classes': 0}, 'classes is 0, but must be at least 1'),
            ({'min_size': 0}, 'min_size is 0, but must be at least 1'),
            ({'context': -0.1}, 'context is -0.1, but must be at least 0'),
            ({'max_per_class': 0}, 'max_per_class is 0, but must be at least 1'),
        ],
    )
    def test_options(self, options, message, shapes, tmp_path):
        with pytest.raises(ValueError, match=message):
            cut(shapes, tmp_path / 'crops', **options)
        assert not (tmp_path / 'crops').exists()

    @pytest.mark.parametrize(
        'damage, error, message',
        [
            (
                lambda root: (root / 'annotations' / 'instances_val.json').unlink(),
                FileNotFoundError,
                r'has no annotations/instances_\*val\*.json: name .*--split',
            ),
            (
                lambda root: shutil.copy(
                    root / 'annotations' / 'instances_train.json',
                    root / 'annotations' / 'instances_train_mini.json',
                ),
                ValueError,
                'several files for train, instances_train.json, instances_train_mini.json',
            ),
            (
                lambda root: shutil.rmtree(root / 'val'),
                FileNotFoundError,
                'no image folder .*val for .*instances_val.json: name it with --split',
            ),
            (
                lambda root: (root / 'annotations' / 'instances_val.json').write_text(
                    '[]', encoding='utf-8'
                ),
                ValueError,
                'instances_val.json is no annotation file of COCO .*tools/check_dataset.py',
            ),
            (
                lambda root: next((root / 'train').iterdir()).unlink(),
                FileNotFoundError,
                'image .*jpg is missing: tools/check_dataset.py',
            ),
            (
                lambda root: next((root / 'train').iterdir()).write_text(
                    '<html>', encoding='utf-8'
                ),
                ValueError,
                'jpg is no image, or its data is damaged: tools/check_dataset.py',
            ),
            (
                lambda root: cv2.imwrite(
                    str(next((root / 'train').iterdir())), np.zeros((60, 50, 3), np.uint8)
                ),
                ValueError,
                'jpg is 50 x 60, but annotated as 128 x 128',
            ),
        ],
    )
    def test_data(self, damage, error, message, edited, tmp_path):
        root, _ = edited
        damage(root)
        with pytest.raises(error, match=message):
            cut(root, tmp_path / 'crops', min_size=1)

    def test_name_that_is_no_folder(self, edited, tmp_path):
        root, edit = edited
        edit(lambda content: content['categories'][0].update(name='../circle'))
        with pytest.raises(ValueError, match="class '../circle' cannot be the name of a folder"):
            cut(root, tmp_path / 'crops')


class TestTool:
    def test_named_splits(self, shapes, tmp_path, run):
        names = [
            ('--split', split, f'annotations/instances_{split}.json', split)
            for split in ('val', 'train')
        ]
        out = run(
            'tools/crop_coco.py', shapes, tmp_path / 'a', '--classes', 6, *names[0], *names[1]
        )
        cut(shapes, tmp_path / 'b', min_size=32)
        of_a, of_b = files(tmp_path / 'a'), files(tmp_path / 'b')
        assert of_a == of_b
        assert 'star' in out and 'data_preprocessor = dict(mean=[' in out
        out = run('tools/crop_coco.py', shapes, tmp_path / 'c', *names[0], succeeds=False)
        assert 'error: --split has to name train and val, once each, but names val' in out

    def test_coco(self, coco_root, tmp_path, run):
        command = ('tools/crop_coco.py', coco_root, tmp_path / 'crops')
        command += ('--classes', 12, '--max-per-class', 30, '--square')
        out = run(*command)
        assert 'potted plant               30        7\n' in out
        assert 'all                       357      168\n' in out
        paths = list((tmp_path / 'crops').glob('*/*/*.jpg'))
        assert len(paths) == 357 + 168
        shapes_ = [cv2.imread(str(path)).shape for path in paths[::20]]
        assert sum(height == width for height, width, _ in shapes_) > len(shapes_) / 2
        times = {path: path.stat().st_mtime_ns for path in paths}
        assert run(*command).splitlines()[-1] == out.splitlines()[-1]
        assert times == {path: path.stat().st_mtime_ns for path in paths}

    def test_errors_are_one_line(self, shapes, tmp_path, run):
        command = ('tools/crop_coco.py', shapes, tmp_path / 'x', '--classes', 'star', 'sun')
        out = run(*command, succeeds=False)
        assert "error: unknown class 'sun'; there are: circle, " in out and 'Traceback' not in out
