"""What users get wrong with image folders: one sentence, before anything is built."""

import shutil

import pytest
from mmengine.config import Config

from lesa_mmdet.engine import preflight

from helpers.classifiers import CLASSES, load
from helpers.paths import ROOT

CONFIG = ROOT / 'configs' / 'imagenet' / 'lesa-resnet50_4xb32_in1k.py'


@pytest.fixture
def images(image_folder, tmp_path):
    return shutil.copytree(image_folder, tmp_path / 'images')


def load_for(images, num_classes=3, metainfo=dict(classes=None)):
    """The config on an ImageFolder."""
    cfg = load(CONFIG.stem)
    cfg.model.head.num_classes = num_classes
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.update(data_root=str(images), metainfo=metainfo)
    return cfg


def test_all_is_there(images):
    for tool in ('train', 'test'):
        preflight.check_files(load_for(images), tool)


def test_own_images_as_documented(images, tmp_path):
    document = (ROOT / 'docs' / 'pretraining.md').read_text(encoding='utf-8')
    text = document.rpartition('```python\n')[2].partition('```')[0]
    for written, here in (('./', f'{CONFIG.parent}/'), ('data/own', images), ('=20', '=3')):
        assert text.count(written) == 1
        text = text.replace(written, str(here))
    (tmp_path / 'own.py').write_text(text, encoding='utf-8')
    cfg = Config.fromfile(tmp_path / 'own.py')
    for tool in ('train', 'test'):
        preflight.check_files(cfg, tool)
    from mmpretrain.registry import DATASETS

    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = DATASETS.build(cfg[loader].dataset)
        assert dataset.CLASSES == CLASSES and dataset[0]['inputs'].shape == (3, 224, 224)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_missing(split, images):
    shutil.rmtree(images / split)
    with pytest.raises(FileNotFoundError) as error:
        preflight.check_files(load_for(images), 'train')
    assert str(error.value).startswith(
        f'image folder of {split}_dataloader: {images}/{split} does not exist; get ILSVRC 2012 from'
    )


@pytest.mark.parametrize('classes', [(), ('red', 'green', 'blue')])
def test_empty(classes, images):
    shutil.rmtree(images / 'train')
    for name in classes:
        (images / 'train' / name).mkdir(parents=True)
    (images / 'train').mkdir(exist_ok=True)
    (images / 'train' / 'readme.txt').touch()
    with pytest.raises(FileNotFoundError, match=f'{images}/train has no folders of images; get'):
        preflight.check_files(load_for(images), 'train')


@pytest.mark.parametrize('num_classes', [2, 4, 1000])
def test_other_number_of_classes_than_the_head(num_classes, images):
    with pytest.raises(ValueError) as error:
        preflight.check_files(load_for(images, num_classes), 'test')
    assert str(error.value) == (
        f'image folder of test_dataloader: {images}/val has folders of 3 classes, but '
        f'model.head.num_classes has {num_classes}; for classes of your own set '
        'model.head.num_classes=3 and test_dataloader.dataset.metainfo.classes=None '
        '(their names are those of the folders)'
    )


@pytest.mark.parametrize('metainfo', [None, dict()])
def test_other_classes_than_imagenets(metainfo, images):
    with pytest.raises(ValueError, match=r'has folders of 3 classes, but ImageNet has 1000; for'):
        preflight.check_files(load_for(images, metainfo=metainfo), 'train')


def test_a_list_of_images_instead_of_folders(images):
    """The other layout of mmpretrain's ImageNet."""
    shutil.rmtree(images / 'train' / 'red')
    (images / 'meta').mkdir()
    (images / 'meta' / 'train.txt').write_text('green/0.png 1\n', encoding='utf-8')
    preflight.check_files(load_for(images), 'train')


def test_data_sets_of_another_kind(images):
    """mmpretrain's CustomDataset, inside of another one."""
    cfg = load_for(images)
    folder = dict(type='CustomDataset', data_root=str(images), data_prefix=dict(img_path='gone'))
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=folder)
    with pytest.raises(FileNotFoundError, match=r'gone does not exist; .*tools/crop_coco\.py'):
        preflight.check_files(cfg, 'train')
    folder['data_prefix'] = 'train'
    cfg.train_dataloader.dataset = folder
    preflight.check_files(cfg, 'train')


@pytest.mark.parametrize('tool, rest', [('train', ()), ('test', ('gone.pth',))])
def test_tools_end_with_one_line(tool, rest, run, tmp_path):
    root = ('--cfg-options', *(f'{kind}_dataloader.dataset.data_root=gone' for kind in SPLITS))
    command = (f'tools/{tool}.py', CONFIG, *rest, '--work-dir', tmp_path / 'work', *root)
    out = run(*command, succeeds=False)
    kind = {'train': ('train', 'train'), 'test': ('test', 'val')}[tool]
    assert out.splitlines()[-1].startswith(
        f'error: image folder of {kind[0]}_dataloader: gone/{kind[1]} does not exist in {ROOT}; '
    )
    assert 'Traceback' not in out and not (tmp_path / 'work').exists()


SPLITS = ('train', 'val', 'test')


@pytest.mark.parametrize('dumped', [False, True])
def test_mmpretrain_is_not_installed(dumped, run, without_mmpretrain, tmp_path):
    config = CONFIG
    if dumped:  # as a training leaves it in its work_dir: there is no base any more
        config = tmp_path / 'dumped.py'
        load(CONFIG.stem).dump(config)
    out = run('tools/train.py', config, succeeds=False, **without_mmpretrain)
    assert out.splitlines()[-1] == (
        f'error: {config}: it needs mmpretrain, which is not installed: '
        "pip install 'mmpretrain>=1.2,<2' torchvision"
    )
    assert 'Traceback' not in out
