"""What is looked at before anything is built: the files that a config names."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import join_path

COCO_HINT = (
    'get COCO 2017 with tools/download_coco.py, which puts it into data/coco (annotations/, '
    'train2017/, val2017/), or name your folder in the config'
)
STUFF_HINT = (
    'get the maps with tools/download_coco.py --parts stuff, which puts them into '
    'data/coco/stuffthingmaps, or take the config that needs none: '
    'configs/htc/htc-without-semantic_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280.py'
)
CHECKPOINT_HINT = (
    'get the pre-trained backbones from https://github.com/Chenglin-Yang/LESA (none of plain '
    'self-attention was released: pre-train your own, docs/pretraining.md), or train from scratch '
    'with --cfg-options model.backbone.init_cfg=None'
)
IMAGE_FOLDER_HINTS = {
    'ImageNet': (
        'get ILSVRC 2012 from https://image-net.org/download and put it into data/imagenet, one '
        'folder of images a class in train/ and in val/, or name your folder in the config'
    ),
    'CustomDataset': (
        'name a folder that has one folder of images a class, such as tools/crop_coco.py cuts out '
        "of COCO's images"
    ),
}
TRAIN_HINT = 'train one with tools/train.py'
LOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}
EVALUATORS = {'train': ('val_evaluator',), 'test': ('test_evaluator',)}


def check_files(cfg: Mapping[str, Any], tool: str) -> None:
    """Look for the annotation files, images and checkpoints that a config names.

    Args:
        cfg (Mapping[str, Any]): A whole config.
        tool (str): 'train' or 'test'.

    Raises:
        FileNotFoundError: For the first that does not exist, with where to get it.
        ValueError: If the images are of other classes than the classifier knows.
    """
    for loader in LOADERS[tool]:
        for dataset in _dicts_with(cfg.get(loader), 'type'):
            if dataset['type'] in IMAGE_FOLDER_HINTS:
                _check_image_folder(dataset, loader, cfg['model'].get('head') or {})
        for dataset in _dicts_with(cfg.get(loader), 'ann_file'):
            root = dataset.get('data_root') or ''
            check_exists(join_path(root, dataset['ann_file']), f'annotation file of {loader}')
            for kind, folder in (dataset.get('data_prefix') or {}).items():
                hint = STUFF_HINT if kind == 'seg' else COCO_HINT
                check_exists(join_path(root, folder), f'{kind} folder of {loader}', hint)
    for evaluator in EVALUATORS[tool]:
        for metric in _dicts_with(cfg.get(evaluator), 'ann_file'):
            check_exists(metric['ann_file'], f'annotation file of {evaluator}')
    if tool == 'train':
        for init_cfg in _dicts_with(cfg.get('model'), 'checkpoint'):
            check_exists(init_cfg['checkpoint'], 'pre-trained checkpoint', CHECKPOINT_HINT)


def _check_image_folder(dataset: Mapping, loader: str, head: Mapping) -> None:
    """Check that a data set of mmpretrain has a folder of images for each class of the head."""
    root, split = dataset.get('data_root', ''), dataset.get('split', '')
    prefix = dataset.get('data_prefix') or split
    folder = join_path(root, prefix['img_path'] if isinstance(prefix, Mapping) else prefix)
    what, hint = f'image folder of {loader}', IMAGE_FOLDER_HINTS[dataset['type']]
    check_exists(folder, what, hint)
    listed = dataset.get('ann_file') or Path(root, 'meta', f'{split}.txt').is_file()
    if listed or '://' in folder:
        return
    folders = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    if not any(os.listdir(path) for path in folders):
        raise FileNotFoundError(f'{what}: {folder} has no folders of images; {hint}')
    expected = {'model.head.num_classes': head.get('num_classes', len(folders))}
    if dataset['type'] == 'ImageNet' and 'classes' not in (dataset.get('metainfo') or {}):
        expected['ImageNet'] = 1000
    for name, number in expected.items():
        if number != len(folders):
            raise ValueError(
                f'{what}: {folder} has folders of {len(folders)} classes, but {name} has {number}; '
                f'for classes of your own set model.head.num_classes={len(folders)} and '
                f'{loader}.dataset.metainfo.classes=None (their names are those of the folders)'
            )


def check_exists(path: str, what: str, hint: str = COCO_HINT) -> None:
    """Look for a file or folder, unless it is a URL.

    Raises:
        FileNotFoundError: If it does not exist: what it is, and where to get it.
    """
    if path and '://' not in path and not Path(path).expanduser().exists():
        raise FileNotFoundError(f'{what}: {path} does not exist; {hint}')


def _dicts_with(node: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """All dicts inside a config that have a value for a key."""
    if isinstance(node, Mapping):
        if node.get(key):
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts_with(child, key)
