import copy
import json
import shutil
import tempfile
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

from lesa_mmdet import CheckedCocoDataset
from lesa_mmdet.engine import preflight
from lesa_mmdet.utils.errors import UserValueError

from helpers.paths import ROOT

CONFIG = 'configs/mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'


@pytest.fixture
def cfg(tmp_path):
    """The config with its data and its checkpoint in place."""
    cfg = Config.fromfile(ROOT / CONFIG)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(tmp_path)
        (tmp_path / dataset.data_prefix.img).mkdir(exist_ok=True)
        (tmp_path / dataset.ann_file).parent.mkdir(exist_ok=True)
        (tmp_path / dataset.ann_file).touch()
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(tmp_path / dataset.ann_file)
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'backbone.pth')
    (tmp_path / 'backbone.pth').touch()
    return cfg


def test_nothing_missing(cfg):
    preflight.check_files(cfg, 'train')
    preflight.check_files(cfg, 'test')


@pytest.mark.parametrize(
    'missing, message',
    [
        ('annotations/instances_train2017.json', 'annotation file of train_dataloader: .*get COCO'),
        ('annotations/instances_val2017.json', 'annotation file of val_dataloader: .*get COCO'),
        ('train2017', 'img folder of train_dataloader: .*get COCO'),
        ('backbone.pth', 'pre-trained checkpoint: .*get the pre-trained backbones from'),
    ],
)
def test_missing_files_are_named_with_where_to_get_them(cfg, missing, message, tmp_path):
    path = tmp_path / missing
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message) as error:
        preflight.check_files(cfg, 'train')
    assert str(path) in str(error.value)


def test_wrapped_data_sets_and_remote_checkpoints(cfg):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    cfg.model.backbone.init_cfg.checkpoint = 'torchvision://resnet50'
    preflight.check_files(cfg, 'train')
    inner.ann_file = 'gone.json'
    cfg.train_dataloader.dataset.dataset.ann_file = 'gone.json'
    with pytest.raises(FileNotFoundError, match='gone.json'):
        preflight.check_files(cfg, 'train')


@pytest.mark.parametrize(
    'backend, is_asked',
    [
        (None, True),
        (dict(backend='local'), True),
        (dict(backend='petrel', path_mapping={'data/': 's3://data/'}), False),
        (dict(backend='lmdb', db_path='images'), False),
    ],
)
def test_what_another_backend_has_is_not_looked_for_here(backend, is_asked, cfg, tmp_path):
    """Images by the step that loads them, annotations by the data set and the metric."""
    dataset = cfg.train_dataloader.dataset
    (tmp_path / 'train2017').rmdir()
    dataset.pipeline[0].backend_args = backend
    if is_asked:
        with pytest.raises(FileNotFoundError, match='img folder'):
            preflight.check_files(cfg, 'train')
        return
    preflight.check_files(cfg, 'train')
    dataset.ann_file = cfg.val_evaluator.ann_file = 'gone.json'
    with pytest.raises(FileNotFoundError, match='annotation file of train_dataloader'):
        preflight.check_files(cfg, 'train')
    dataset.backend_args = backend
    with pytest.raises(FileNotFoundError, match='annotation file of val_evaluator'):
        preflight.check_files(cfg, 'train')
    cfg.val_evaluator.backend_args = backend
    preflight.check_files(cfg, 'train')


def test_types_may_be_classes_or_paths(cfg):
    dataset = cfg.train_dataloader.dataset
    for kind in (CheckedCocoDataset, 'mmdet.CocoDataset', 'mmdet.datasets.coco.CocoDataset'):
        dataset.type = kind
        preflight.check_config(cfg, 'train')
        cfg.model.roi_head.bbox_head.num_classes = 3
        with pytest.raises(UserValueError, match='has 80 classes .*bbox_head.num_classes is 3'):
            preflight.check_config(cfg, 'train')
        cfg.model.roi_head.bbox_head.num_classes = 80


@pytest.mark.parametrize('remote', ['data set', 'metric', 'address'])
def test_files_behind_a_backend_are_not_compared(remote, cfg):
    """One may be a copy of the other."""
    copy = Path(cfg.test_evaluator.ann_file).with_name('copy.json')
    copy.touch()
    cfg.test_evaluator.ann_file = str(copy)
    with pytest.raises(UserValueError, match='name the same file in both'):
        preflight.check_config(cfg, 'test')
    backend = dict(backend='petrel', path_mapping={'data/': 's3://data/'})
    if remote == 'data set':
        cfg.test_dataloader.dataset.backend_args = backend
    elif remote == 'metric':
        cfg.test_evaluator.backend_args = backend
    else:
        cfg.test_evaluator.ann_file = 's3://bucket/val.json'
    preflight.check_config(cfg, 'test')


@pytest.mark.parametrize(
    'content, is_said',
    [
        (dict(annotations=[dict(id=0), dict(id=1)]), True),
        (dict(annotations=[dict(id=-1), dict(id='0')]), True),
        (dict(annotations=[dict(id=-1), dict(id='one')]), False),
        (dict(annotations=[dict(id=1), dict(segments_info=[])]), False),
        (dict(annotations=None), False),
        ([], False),
    ],
)
def test_id_0_is_said_of_any_data_set(content, is_said, cfg, told):
    path = Path(cfg.test_evaluator.ann_file)
    path.write_text(json.dumps(content), encoding='utf-8')
    for tool in ('train', 'test'):
        preflight.check_config(cfg, tool)
    said = 'an annotation has the id 0'
    assert not any(said in line for line in told)  # CheckedCocoDataset says so itself
    cfg.test_dataloader.dataset.type = cfg.val_dataloader.dataset.type = 'CocoDataset'
    for tool in ('train', 'test'):
        preflight.check_config(cfg, tool)
    assert sum(said in line for line in told) == 2 * is_said


def classes(number, **model):
    """A config of a data set with so many classes."""
    metainfo = dict(classes=tuple(f'class {index}' for index in range(number)))
    dataset = dict(type='CocoDataset', ann_file='a.json', metainfo=metainfo)
    return dict(model=model, test_dataloader=dict(dataset=dataset))


@pytest.mark.parametrize(
    'model',
    [
        dict(bbox_head=dict(num_classes=3)),
        dict(roi_head=dict(bbox_head=[dict(num_classes=4), dict(num_classes=3)])),
        dict(detector=dict(roi_head=dict(mask_head=dict(num_classes=3)))),
    ],
)
def test_heads_that_number_the_classes_have_as_many(model):
    with pytest.raises(UserValueError, match='has 4 classes .*num_classes is 3: set the numbers'):
        preflight.check_classes(classes(4, **model), 'test')


@pytest.mark.parametrize(
    'model, is_said',
    [
        (dict(tracker=dict(), detector=dict(bbox_head=dict(num_classes=1))), False),
        (dict(reid=dict(head=dict(num_classes=380))), False),
        (dict(language_model=dict(), bbox_head=dict(num_classes=256)), False),
        (dict(backbone=dict(text_model={}), bbox_head=dict(x=dict(num_classes=80))), False),
        (dict(roi_head=dict(mask_head=dict(class_agnostic=True, num_classes=1))), False),
        (dict(quality_estimator=dict(num_classes=5)), True),
    ],
)
def test_heads_that_answer_for_something_else_are_not_refused(model, is_said, told):
    preflight.check_classes(classes(4, **model), 'test')
    assert any('num_classes' in line for line in told) == is_said


def test_panoptic_heads_may_know_the_things_only():
    cfg = classes(7, bbox_head=dict(num_classes=6))
    cfg['test_dataloader']['dataset']['metainfo']['thing_classes'] = ('a',) * 6
    preflight.check_classes(cfg, 'test')
    cfg['model']['bbox_head']['num_classes'] = 5
    with pytest.raises(UserValueError):
        preflight.check_classes(cfg, 'test')


def test_classes_may_be_listed_in_a_file(tmp_path):
    cfg = classes(2, bbox_head=dict(num_classes=2))
    path = tmp_path / 'classes.txt'
    path.write_text('cat\ndog\n', encoding='utf-8')
    cfg['test_dataloader']['dataset']['metainfo']['classes'] = str(path)
    preflight.check_classes(cfg, 'test')
    path.unlink()
    with pytest.raises(UserValueError, match='has to be a tuple'):
        preflight.check_classes(cfg, 'test')


def test_no_config_that_mmdet_ships_is_refused(monkeypatch):
    """But for those without the data loader of the tool, and with all files in place."""
    memory = Path('/dev/shm')
    monkeypatch.setattr(tempfile, 'tempdir', str(memory) if memory.is_dir() else None)
    parse, parsed = Config._file2dict, {}

    def parse_once(filename, *args, **kwargs):
        if filename not in parsed:
            parsed[filename] = parse(filename, *args, **kwargs)
        return copy.deepcopy(parsed[filename])

    monkeypatch.setattr(Config, '_file2dict', staticmethod(parse_once))
    monkeypatch.setattr(preflight, 'check_exists', lambda *_, **__: None)
    monkeypatch.setattr(preflight, '_check_image_folder', lambda *_: None)
    root = Path(mmdet.__file__).parent / '.mim' / 'configs'
    passed, lacking, broken, refused = 0, [], [], {}
    for path in sorted(path for path in root.rglob('*.py') if '_base_' not in path.parts):
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
        except (FileNotFoundError, ImportError):  # a base that mmdet lacks, or is mmpretrain's
            broken.append(path.name)
            continue
        for tool in ('train', 'test'):
            try:
                preflight.check_config(cfg, tool)
                passed += 1
            except UserValueError as error:
                name = f'{path.relative_to(root)} {tool}'
                if any(not cfg.get(f'{tool}_{part}') for part in ('dataloader', 'evaluator')):
                    lacking.append(name)
                else:
                    refused[name] = str(error)
    assert refused == {}
    assert passed > 1400 and len(lacking) < 40 and len(broken) < 20


@pytest.mark.parametrize('arguments', [('tools/train.py',), ('tools/test.py', 'checkpoint.pth')])
def test_one_sentence_before_anything_is_built(arguments, run, tmp_path):
    tool, *rest = arguments
    options = [f'{split}_dataloader.dataset.data_root=x' for split in ('train', 'test')]
    out = run(
        tool, CONFIG, *rest, '--work-dir', tmp_path, '--cfg-options', *options, succeeds=False
    )
    assert out.splitlines()[-1].startswith('error: annotation file of')
    assert 'Traceback' not in out


def test_missing_checkpoint(cfg, run, tmp_path):
    cfg.dump(tmp_path / 'config.py')
    out = run('tools/test.py', tmp_path / 'config.py', tmp_path / 'gone.pth', succeeds=False)
    assert f'error: checkpoint: {tmp_path}/gone.pth does not exist; train one' in out


@pytest.mark.parametrize(
    'free, workers, refused',
    [(1 << 20, 2, True), (1 << 20, 0, False), (1 << 30, 2, False), (31 << 20, 4, True)],
)
def test_shared_memory_is_enough_for_a_batch(free, workers, refused, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(1 << 30, 0, free)
    monkeypatch.setattr(preflight.shutil, 'disk_usage', lambda folder: usage)
    cfg = {'train_dataloader': {'num_workers': workers, 'batch_size': 2}}
    if refused:
        with pytest.raises(UserValueError, match='workers of train_dataloader share images'):
            preflight.check_shared_memory(cfg, 'train', tmp_path)
    else:
        preflight.check_shared_memory(cfg, 'train', tmp_path)
    with pytest.raises(UserValueError, match='nowhere, which has 0 bytes left'):
        cfg['train_dataloader']['num_workers'] = 1
        preflight.check_shared_memory(cfg, 'train', tmp_path / 'nowhere')
    cfg['train_dataloader']['num_workers'] = 0
    preflight.check_shared_memory(cfg, 'train', tmp_path / 'nowhere')


def test_the_folder_of_images_may_be_a_text(cfg, tmp_path):
    """As mmpretrain has it."""
    dataset = cfg.train_dataloader.dataset
    dataset.data_prefix = 'train2017/'
    preflight.check_files(cfg, 'train')
    dataset.data_prefix = 'gone/'
    with pytest.raises(FileNotFoundError, match='img folder of train_dataloader: .*gone'):
        preflight.check_files(cfg, 'train')
