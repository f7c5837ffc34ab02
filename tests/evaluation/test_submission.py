"""Results for COCO's server: what is written can be read back, what is wrong is refused."""

import copy
import json
import zipfile

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from lesa_mmdet.evaluation.submission import configure, pack
from lesa_mmdet.upstream import DATASETS, LoadAnnotations

from helpers.paths import ROOT

SWITCH = ROOT / 'configs' / '_base_' / 'datasets' / 'test_dev2017.py'
IMAGES = [{'id': i, 'file_name': f'{i}.jpg', 'height': 20 + i, 'width': 30} for i in (7, 8, 9)]


@pytest.fixture
def ann_file(tmp_path):
    """Three images and two categories, as COCO lists test-dev."""
    path = tmp_path / 'annotations' / 'image_info_test-dev2017.json'
    path.parent.mkdir()
    categories = [{'id': 1, 'name': 'person'}, {'id': 90, 'name': 'toothbrush'}]
    path.write_text(
        json.dumps({'info': {}, 'images': IMAGES, 'categories': categories}), encoding='utf-8'
    )
    return path


def detect(image):
    """Two detections of an image."""
    rng = np.random.default_rng(image['id'])
    for category_id in (1, 90):
        mask = np.asfortranarray(rng.random((image['height'], image['width'])) < 0.5, np.uint8)
        rle = coco_mask.encode(mask)
        yield {
            'image_id': image['id'],
            'category_id': category_id,
            'score': 0.5,
            'bbox': [1.0, 2.0, 3.5, 4.0],
            'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode()},
        }


@pytest.fixture
def results(tmp_path):
    """Write detections, and the list of tested images, as the test does. Returns their prefix."""

    def write(change=lambda results: None, tested=(7, 8, 9), tasks=('bbox', 'segm')):
        found = [result for image in IMAGES for result in detect(image)]
        change(found)
        for task in tasks:
            (tmp_path / f'results.{task}.json').write_text(json.dumps(found), encoding='utf-8')
        if tested is not None:
            (tmp_path / 'results.images.json').write_text(json.dumps(tested), encoding='utf-8')
        return str(tmp_path / 'results')

    return write


def test_server_gets_what_it_expects(results, ann_file):
    archives = pack(results(), str(ann_file), 'lesa-r50')
    assert [path.parent.name for path in archives] == ['results_bbox', 'results_segm']
    for path, geometry in zip(archives, ('bbox', 'segmentation'), strict=True):
        assert path.name == 'detections_test-dev2017_lesa-r50_results.zip'
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == ['detections_test-dev2017_lesa-r50_results.json']
            content = json.loads(archive.read(archive.namelist()[0]))
        assert content[0].keys() == {'image_id', 'category_id', 'score', geometry}
        loaded = COCO(str(ann_file)).loadRes(copy.deepcopy(content))
        assert [{k: a[k] for k in content[0]} for a in loaded.dataset['annotations']] == content
    # The masks' own areas, not those of boxes.
    masks = [coco_mask.decode(result['segmentation']).sum() for result in content]
    assert [annotation['area'] for annotation in loaded.dataset['annotations']] == masks


def drop_image_8(results):
    results[:] = [result for result in results if result['image_id'] != 8]


def test_missing_images(results, ann_file):
    pack(results(drop_image_8), str(ann_file), 'lesa')  # it was tested, and nothing found
    with pytest.raises(ValueError, match=r'bbox\.json: 1 images were not tested: image 8$'):
        pack(results(drop_image_8, tested=(7, 9)), str(ann_file), 'lesa')


def test_missing_images_without_a_list_of_the_tested(results, ann_file):
    pack(results(tested=None), str(ann_file), 'lesa')
    with pytest.raises(ValueError, match='1 images have no detections, and no .*: image 8$'):
        pack(results(drop_image_8, tested=None), str(ann_file), 'lesa')


def change(**values):
    return lambda results: results[3].update(values)


@pytest.mark.parametrize(
    'edit, message',
    [
        (change(image_id=6), '1 detections are wrong: detection 3: there is no image 6'),
        (change(category_id=2), 'detection 3: there is no category 2'),
        (change(score=float('nan')), 'detection 3: its score is nan'),
        (change(score='high'), 'detection 3: its score is high'),
        (change(bbox=[1, 2, 3]), r'detection 3: its bbox is \[1, 2, 3\]'),
        (change(bbox=[1, 2, -3, 4]), 'detection 3: its bbox is'),
        (lambda results: results[3].pop('score'), 'detection 3: it lacks score'),
        (lambda results: results.insert(3, 'x'), 'detection 3: it lacks image_id, category_id'),
        (lambda results: [r.update(image_id=6) for r in results], '6 detections .*; [.]{3}$'),
        (change(image_id=[7]), r'detection 3: its image_id is \[7\], but has to be a number or'),
        (change(image_id='\x1b[2J'), r'detection 3: there is no image \\x1b\[2J'),
        (change(category_id={}), 'detection 3: its category_id is {}, but'),
        (change(score=10**400), 'detection 3: its score is a number of 1,329 bits, but'),
        (change(score=True), 'detection 3: its score is True, but'),
        (change(bbox=[10**400] * 4), r'its bbox\[0\] is a number of 1,329 bits, but'),
        (change(bbox={'x': 1}), 'its bbox is {.*}, but has to be a list'),
        (change(bbox=[1] * 100_000), r'its bbox is \[1, 1, 1, 1, \.\.\.\], but must be'),
        (lambda results: results.clear(), r'has to be a list of detections, but is \[\]'),
    ],
)
def test_wrong_detections_are_named(edit, message, results, ann_file):
    prefix = results(edit)
    with pytest.raises(ValueError, match=message):
        pack(prefix, str(ann_file), 'lesa')
    assert not list(ann_file.parents[1].rglob('*.zip'))


@pytest.mark.parametrize(
    'mask, message',
    [
        ({'size': [27, 30], 'counts': [810]}, r'for size \[27, 30\], but the image has \[28, 30\]'),
        ({'size': [28, 30], 'counts': [100]}, 'for 100 pixels, but the image has 840'),
        ({'size': [28, 30], 'counts': 'zzz'}, 'damaged'),
        ([[1, 1, 5, 1, 5, 5]], 'run lengths for size None'),
    ],
)
def test_wrong_masks_are_named(mask, message, results, ann_file):
    with pytest.raises(ValueError, match=f'segm.json: 1 detections .* detection 3: .*{message}'):
        pack(results(change(segmentation=mask)), str(ann_file), 'lesa')


def test_unreadable_files_and_names(results, ann_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'neither .*none\.bbox\.json nor'):
        pack(str(tmp_path / 'none'), str(ann_file), 'lesa')
    with pytest.raises(ValueError, match="algorithm is 'a/b'"):
        pack(results(), str(ann_file), 'a/b')
    path = tmp_path / 'results.segm.json'
    path.write_text(path.read_text(encoding='utf-8')[:-5], encoding='utf-8')
    with pytest.raises(ValueError, match=r'segm\.json is no JSON, or it is truncated'):
        pack(str(tmp_path / 'results'), str(ann_file), 'lesa')


@pytest.mark.parametrize(
    'name, content, sentence',
    [
        ('results.segm.json', b'[' * 100_000, 'segm.json is no JSON, .*: nested too deep'),
        ('results.segm.json', b'{"a": 1}', "segm.json has to be a list of detections, but is {'a"),
        ('results.images.json', b'{}', 'images.json is {}, but has to be a list'),
        (
            'results.images.json',
            b'[[1]]',
            r'images.json: \[0\] is \[1\], but has to be a number or',
        ),
        ('results.images.json', b'7', 'images.json is 7, but has to be a list'),
        (None, b'7', 'annotation file .* is 7, but has to be a dict'),
        (None, b'{}', 'annotation file .* has no images'),
        (None, b'{"images": [{}], "categories": []}', r'images\[0\] has no id'),
        (None, b'{"images": [{"id": 1, "height": -1, "width": 1}]}', 'has no categories'),
        (None, b'[' * 100_000, 'annotation file .* is no JSON, .*: nested too deep'),
    ],
)
def test_files_of_another_shape(name, content, sentence, results, ann_file, tmp_path):
    prefix = results()
    (tmp_path / name if name else ann_file).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        pack(prefix, str(ann_file), 'lesa')
    assert len(str(error.value)) < 600


def test_tool(results, ann_file, run):
    prefix = results(tested=(7, 8))
    out = run('tools/pack_results.py', prefix, ann_file, 'lesa', succeeds=False)
    last = out.splitlines()[-1]
    assert last == f'error: {prefix}.bbox.json: 1 images were not tested: image 9'


CONFIGS = [*ROOT.glob('configs/mask_rcnn/*.py'), *ROOT.glob('configs/htc/*.py')]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_switch_fits_every_config(path, ann_file, tmp_path):
    (tmp_path / 'test2017').mkdir()
    cfg = Config.fromfile(path)
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    switched = configure(cfg, Config.fromfile(SWITCH), 'lesa', tmp_path / 'work')
    assert cfg.test_evaluator.type == 'CocoMetric'  # the config itself stays as it is
    assert switched.test_evaluator.ann_file == str(ann_file)
    dataset = switched.test_dataloader.dataset
    # As mmengine joins paths: an absolute one stays.
    init_default_scope('mmdet')
    built = DATASETS.build(dict(dataset, metainfo=dict(classes=('person', 'toothbrush'))))
    assert len(built) == len(IMAGES) and built.ann_file == str(ann_file)
    assert built.data_prefix == {'img': str(tmp_path / 'test2017')}
    assert built.get_data_info(0)['seg_map_path'] is None
    assert 'LoadAnnotations' not in str(dataset.pipeline)


@pytest.mark.parametrize('kind', [LoadAnnotations, 'mmdet.LoadAnnotations'])
def test_a_step_may_be_named_by_its_class(kind, ann_file, tmp_path):
    (tmp_path / 'test2017').mkdir()
    cfg = Config.fromfile(CONFIGS[0])
    dataset = cfg.test_dataloader.dataset
    dataset.data_root = str(tmp_path)
    for step in dataset.pipeline:
        if step.type == 'LoadAnnotations':
            step.type = kind
    switched = configure(cfg, Config.fromfile(SWITCH), 'lesa', tmp_path / 'work')
    assert len(switched.test_dataloader.dataset.pipeline) == len(dataset.pipeline) - 1


def test_missing_test_dev_says_how_to_get_it(tmp_path):
    cfg = Config.fromfile(CONFIGS[0])
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    with pytest.raises(FileNotFoundError, match='image_info_test-dev2017.json does not exist; get'):
        configure(cfg, Config.fromfile(SWITCH), 'lesa', tmp_path)


def test_a_wrapped_data_set_is_refused(tmp_path):
    cfg = Config.fromfile(CONFIGS[0])
    cfg.test_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=cfg.test_dataloader.dataset
    )
    with pytest.raises(ValueError, match='test_dataloader.dataset is a RepeatDataset'):
        configure(cfg, Config.fromfile(SWITCH), 'lesa', tmp_path)
