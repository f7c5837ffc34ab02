"""The data set class: unreadable images, objects without masks."""

import copy
import io
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import FileClient, LocalBackend
from mmengine.fileio.backends import backends
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from lesa_mmdet import CheckedCocoDataset
from lesa_mmdet.datasets.check import check_dataset
from lesa_mmdet.datasets.problems import Problem

from helpers.paths import ROOT

DATASET = ROOT / 'configs' / '_base_' / 'datasets' / 'coco_instance_1024.py'
PIPELINE = Config.fromfile(DATASET).train_pipeline


@pytest.fixture(autouse=True)
def default_scope():
    init_default_scope('mmdet')


def build(root, **options):
    return CheckedCocoDataset(
        **{
            'data_root': str(root),
            'ann_file': 'annotations/instances_train.json',
            'data_prefix': {'img': 'train/'},
            'metainfo': {'classes': ('circle', 'square', 'triangle', 'star', 'cross', 'crescent')},
            'pipeline': PIPELINE,
            **options,
        }
    )


@pytest.fixture
def log(monkeypatch):
    """What is logged."""
    stream = io.StringIO()
    logger = MMLogger.get_instance('data-set')
    monkeypatch.setattr(logger.handlers[0], 'stream', stream)
    return stream


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b''),
        lambda path: path.write_text('<html>', encoding='utf-8'),
    ],
)
def test_unreadable_image_is_named_or_skipped(damage, data, log):
    root, _ = data
    path = sorted((root / 'train').iterdir())[0]
    damage(path)
    with pytest.raises(ValueError, match=f'{path} cannot be read: .*skip_unreadable=True'):
        build(root)[0]

    skipping = build(root, skip_unreadable=True)
    images = [skipping[i]['data_samples'].img_path for i in (0, 0, 1, 2)]
    assert str(path) not in images
    assert log.getvalue().count(str(path)) == 1
    assert '1 of 3 images so far' in log.getvalue()

    evaluating = build(root, skip_unreadable=True, test_mode=True)
    with pytest.raises(ValueError, match=f'{path} cannot be read'):
        evaluating[0]


def test_other_errors_name_the_image(data):
    root, edit = data
    broken = {'size': [64, 64], 'counts': [1, 10_000]}
    edit(lambda content: content['annotations'][0].update(segmentation=broken))
    with pytest.raises(RuntimeError, match=r'shapes_000000\.jpg: ValueError: Invalid RLE'):
        build(root)[0]


@pytest.mark.parametrize('segmentation', [[], [[1, 2, 3, 4]], None])
def test_object_without_a_mask_is_left_out_and_counted(segmentation, data, log):
    root, edit = data
    whole = build(root)[0]['data_samples'].gt_instances
    edit(lambda content: content['annotations'][0].update(segmentation=segmentation))
    sample = build(root)[0]['data_samples']
    assert len(sample.gt_instances) == len(whole) - 1
    assert len(sample.ignored_instances) == 1
    assert '1 objects have no polygon of three points' in log.getvalue()
    assert 'shapes_000000.jpg' in log.getvalue()


def test_boxes_alone_are_no_problem(data, log):
    root, edit = data
    edit(lambda content: [entry.pop('segmentation') for entry in content['annotations']])
    pipeline = copy.deepcopy(PIPELINE)
    pipeline[1].with_mask = False
    assert len(build(root, pipeline=pipeline)[0]['data_samples'].gt_instances)
    assert not log.getvalue()
    assert not check_dataset(root, need_masks=False).problems
    assert list(check_dataset(root).problems) == [Problem.NO_MASKS]


@pytest.mark.filterwarnings('ignore:.*file_client_args:DeprecationWarning')
@pytest.mark.parametrize('argument', ['backend_args', 'file_client_args'])
def test_images_behind_a_backend_are_read_through_it(argument, data, monkeypatch):
    """Also when an error is to be explained: annotations may lie on the disk."""

    class Mapped(LocalBackend):
        def get(self, filepath):
            return super().get(str(filepath).replace('bucket/', ''))

    monkeypatch.setitem(backends, 'mapped', Mapped)
    monkeypatch.setitem(FileClient._backends, 'mapped', Mapped)
    root, edit = data
    broken = {'size': [64, 64], 'counts': [1, 10_000]}
    pipeline = copy.deepcopy(PIPELINE)
    pipeline[0][argument] = dict(backend='mapped')
    behind = dict(data_prefix=dict(img='bucket/train/'), pipeline=pipeline)
    assert build(root, **behind)[0]['data_samples'].img_path.endswith('shapes_000000.jpg')
    edit(lambda content: content['annotations'][0].update(segmentation=broken))
    with pytest.raises(RuntimeError, match=r'shapes_000000\.jpg: ValueError: Invalid RLE'):
        build(root, **behind)[0]


def test_nothing_is_shared_where_there_is_no_shared_memory(data, monkeypatch, log):
    def refuse(self):
        raise RuntimeError('unable to open shared memory object in read-write mode')

    monkeypatch.setattr(torch.Tensor, 'share_memory_', refuse)
    root, _ = data
    assert len(build(root)) == 3
    path = sorted((root / 'train').iterdir())[0]
    path.unlink()
    skipping = build(root, skip_unreadable=True)
    assert skipping[0]['data_samples'].img_path != str(path)
    assert '1 of 3 images so far' in log.getvalue()


@pytest.mark.parametrize(
    'options, is_shared',
    [({}, False), ({'skip_unreadable': True}, True)],
)
def test_only_what_workers_count_together_is_shared(options, is_shared, data):
    root, _ = data
    assert build(root, **options)._skipped.is_shared() == is_shared
    assert not build(root, **options, test_mode=True)._skipped.is_shared()


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(make, data):
    root, _ = data
    path = sorted((root / 'train').iterdir())[0]
    path.unlink()
    make(path)
    dataset = build(root)
    index = next(
        i for i in range(len(dataset)) if dataset.get_data_info(i)['img_path'] == str(path)
    )
    kind = 'a named pipe' if make is os.mkfifo else 'a folder'
    with pytest.raises(ValueError, match=f'{path.name} cannot be read: it is {kind}. Replace it'):
        dataset.prepare_data(index)
