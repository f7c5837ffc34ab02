"""What is looked at before anything is built: files that are read and written, classes."""

import logging
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import join_path, list_from_file
from mmengine.logging import print_log

from ..datasets.coco import CheckedCocoDataset
from ..datasets.ids import NOT_MATCHED, to_number
from ..upstream import DATASETS
from ..utils.configs import name_of
from ..utils.errors import UserFileNotFoundError, UserValueError
from ..utils.paths import check_exists, is_url
from ..utils.schema import DICT, LIST, read_json
from ..utils.text import shorten

COCO_HINT = (
    'get COCO 2017 with tools/download_coco.py, which puts it into data/coco (annotations/, '
    'train2017/, val2017/), or name your folder in the config'
)
SHAPES_HINT = 'tools/demo.py draws these images before it trains on them'
OWN_HINT = 'name your own in the config, as docs/reuse.md shows'
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
IMAGE = 4 << 20  # bytes of one of 1024 x 1024 pixels, and a mask
LOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}
# Heads that number something else: objects or none, stuff.
NOT_OF_CLASSES = ('rpn_head', 'semantic_head')
# Parts of a model with which its heads do not number the classes of the data set.
OTHER_LABELS = ('tracker', 'reid', 'language_model', 'text_model', 'text_encoder')
# How the names of heads end that do.
HEADS = ('bbox_head', 'mask_head', 'query_head', 'point_head')
EVALUATORS = {'train': ('val_evaluator',), 'test': ('test_evaluator',)}


def check_config(cfg: Mapping[str, Any], tool: str) -> None:
    """Look at the files that a config names, and at the classes of its parts.

    Args:
        cfg (Mapping[str, Any]): A whole config.
        tool (str): 'train' or 'test'.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If parts of the config do not fit each other.
    """
    for loader in (*LOADERS[tool], *EVALUATORS[tool]):
        if not cfg.get(loader):
            if tool == 'train' and loader.startswith('val_'):
                continue  # a training without validation
            raise UserValueError(f'the config has no {loader}, which tools/{tool}.py needs')
    check_files(cfg, tool)
    check_classes(cfg, tool)
    _check_evaluators(cfg, tool)
    _tell_ids(cfg, tool)
    check_shared_memory(cfg, tool)


def check_shared_memory(
    cfg: Mapping[str, Any], tool: str, folder: str | os.PathLike = '/dev/shm'
) -> None:
    """Refuse workers that could not hand a single batch on: the training would wait for ever.

    Args:
        cfg (Mapping[str, Any]): A whole config.
        tool (str): 'train' or 'test'.
        folder (str or os.PathLike): Where the system shares memory.

    Raises:
        ValueError: If there is less than 4 MB for each image that workers prepare.
    """
    if sys.platform != 'linux':
        return
    free = shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    for name in LOADERS[tool]:
        loader = cfg.get(name) or {}
        workers, batch_size = (loader.get(key) or 0 for key in ('num_workers', 'batch_size'))
        if free < workers * batch_size * IMAGE:
            raise UserValueError(
                f'{workers} workers of {name} share images through {folder}, which has {free:,} '
                'bytes left to write: enlarge it (docker run --shm-size=8g), or set '
                f'{name}.num_workers=0 {name}.persistent_workers=False'
            )


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
            if name_of(dataset['type']) in IMAGE_FOLDER_HINTS and not _is_remote(dataset):
                _check_image_folder(dataset, loader, cfg['model'].get('head') or {})
        for dataset in _dicts_with(cfg.get(loader), 'ann_file'):
            ann_file, hint = _ann_file(dataset), _hint(dataset)
            if not _has_backend(dataset):
                check_exists(ann_file, f'annotation file of {loader}', hint, knows_home=False)
            folders = {} if _is_remote(dataset) else dataset.get('data_prefix') or {}
            if isinstance(folders, str):  # of mmpretrain
                folders = {'img': folders}
            for kind, folder in folders.items():
                path = join_path(dataset.get('data_root') or '', folder)
                folder_hint = STUFF_HINT if kind == 'seg' else hint
                what = f'{kind} folder of {loader}'
                check_exists(path, what, folder_hint, is_folder=True, knows_home=False)
    for evaluator in EVALUATORS[tool]:
        for metric in _dicts_with(cfg.get(evaluator), 'ann_file'):
            if not _has_backend(metric):
                what = f'annotation file of {evaluator}'
                check_exists(metric['ann_file'], what, _hint(metric), knows_home=False)
    if tool == 'train':
        for init_cfg in _dicts_with(cfg.get('model'), 'checkpoint'):
            check_exists(init_cfg['checkpoint'], 'pre-trained checkpoint', CHECKPOINT_HINT)


def check_classes(cfg: Mapping[str, Any], tool: str) -> None:
    """Compare the classes of a detector's heads with those of the data sets.

    Heads that answer for something else are left alone: those of a tracker, which sees to labels
    itself, and of open vocabulary, which counts words. Heads of a panoptic data set may know the
    things only. Of a head whose purpose is unknown, a difference is said.

    Raises:
        ValueError: If their numbers differ, or the classes are no tuple.
    """
    model = cfg.get('model') or {}
    heads = {} if _has_part(model, OTHER_LABELS) else dict(_heads(model, 'model'))
    for loader in LOADERS[tool]:
        for dataset in _dicts_with(cfg.get(loader), 'ann_file'):
            metainfo = _metainfo(dataset)
            classes, things = metainfo.get('classes'), metainfo.get('thing_classes')
            if isinstance(classes, str):
                raise UserValueError(
                    f'metainfo.classes of {loader} is the text {classes!r}, but has to be a tuple '
                    f'of names: ({classes!r},) with a comma for a single class'
                )
            right = {len(names) for names in (classes, things) if names}
            wrong = {path: number for path, number in heads.items() if number not in right}
            if not classes or not wrong:
                continue
            text = (
                f'{loader} has {len(classes)} classes ({shorten(classes, 6)}), but '
                f'{", ".join(f"{path} is {number}" for path, number in wrong.items())}'
            )
            if any(part.endswith(HEADS) for path in wrong for part in path.split('.')):
                raise UserValueError(
                    f'{text}: set the numbers to {len(classes)}, or name the classes that '
                    f'{dataset["ann_file"]} has in metainfo.classes of each data set'
                )
            print_log(f'{text}: should they be the same?', logger='current', level=logging.WARNING)


def _metainfo(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What a data set says about itself, and its config in addition, as mmengine reads it."""
    metainfo = {**getattr(_class_of(dataset), 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    return {
        key: list_from_file(value) if isinstance(value, str) and os.path.isfile(value) else value
        for key, value in metainfo.items()
    }


def _has_part(node: Any, names: Collection[str]) -> bool:
    """Whether a config has a part of one of these names, wherever."""
    children = node if isinstance(node, (list, tuple)) else ()
    if isinstance(node, Mapping):
        if any(name in node for name in names):
            return True
        children = node.values()
    return any(_has_part(child, names) for child in children)


def _heads(node: Any, path: str) -> Iterator[tuple[str, int]]:
    """The numbers of classes in a detector's config by their paths."""
    if isinstance(node, (list, tuple)):
        node = {str(index): child for index, child in enumerate(node)}
    if isinstance(node, Mapping):
        if isinstance(node.get('num_classes'), int) and not node.get('class_agnostic'):
            yield f'{path}.num_classes', node['num_classes']
        for key, child in node.items():
            if key not in (*NOT_OF_CLASSES, 'train_cfg', 'test_cfg', 'init_cfg'):
                yield from _heads(child, f'{path}.{key}')


def _check_evaluators(cfg: Mapping[str, Any], tool: str) -> None:
    """Check that evaluation knows the truth of the images that it is given.

    One of several metrics is enough: of panoptic data, instances have a file of their own.
    """
    for evaluator, loader in zip(EVALUATORS[tool], LOADERS[tool][-1:], strict=True):
        datasets = list(_dicts_with(cfg.get(loader), 'ann_file'))
        metrics = list(_dicts_with(cfg.get(evaluator), 'ann_file'))
        files = [_ann_file(dataset) for dataset in datasets]
        named = [metric['ann_file'] for metric in metrics]
        if any(map(is_url, [*files, *named])) or any(map(_has_backend, [*datasets, *metrics])):
            continue  # one of them may be a copy of the other
        known = {Path(file).resolve() for file in files}
        if files and named and not known & {Path(file).resolve() for file in named}:
            raise UserValueError(
                f'{evaluator}.ann_file is {", ".join(named)}, but {loader} has the images of '
                f'{", ".join(files)}: name the same file in both'
            )


def _tell_ids(cfg: Mapping[str, Any], tool: str) -> None:
    """Say that pycocotools will never match an object, unless a data set says so."""
    said = {
        Path(_ann_file(dataset)).resolve()
        for dataset in _dicts_with(cfg.get(LOADERS[tool][-1]), 'ann_file')
        if issubclass(_class_of(dataset), CheckedCocoDataset)
    }
    for evaluator in EVALUATORS[tool]:
        for metric in _dicts_with(cfg.get(evaluator), 'ann_file'):
            path = Path(metric['ann_file']).resolve()
            if path in said or path.suffix != '.json' or not path.is_file():
                continue
            said.add(path)
            try:
                content = read_json(path)
            except UserValueError:
                continue  # of which the metric says what is wrong
            objects = content.get('annotations') if DICT.matches(content) else None
            zeros = [
                entry
                for entry in (objects if LIST.matches(objects) else ())
                if DICT.matches(entry) and to_number(entry.get('id')) == 0
            ]
            if zeros:
                print_log(
                    f'{path}: an annotation has the id 0. {NOT_MATCHED}',
                    logger='current',
                    level=logging.WARNING,
                )


def _class_of(dataset: Mapping[str, Any]) -> type:
    """The class of a data set; `object` if nobody knows it."""
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else object


def _ann_file(dataset: Mapping[str, Any]) -> str:
    return join_path(dataset.get('data_root') or '', dataset['ann_file'])


def _hint(part: Mapping[str, Any]) -> str:
    """Where to get the data that a data set or a metric names."""
    path = _ann_file(part)
    if re.search('(train|val|test|test-dev|unlabeled)2017', Path(path).name):
        return COCO_HINT
    return SHAPES_HINT if 'shapes' in Path(path).parts else OWN_HINT


def _check_image_folder(dataset: Mapping, loader: str, head: Mapping) -> None:
    """Check that a data set of mmpretrain has a folder of images for each class of the head."""
    root, split = dataset.get('data_root', ''), dataset.get('split', '')
    prefix = dataset.get('data_prefix') or split
    folder = join_path(root, prefix['img_path'] if isinstance(prefix, Mapping) else prefix)
    what, hint = f'image folder of {loader}', IMAGE_FOLDER_HINTS[name_of(dataset['type'])]
    check_exists(folder, what, hint, is_folder=True)
    listed = dataset.get('ann_file') or Path(root, 'meta', f'{split}.txt').is_file()
    if listed or is_url(folder):
        return
    folders = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    if not any(os.listdir(path) for path in folders):
        raise UserFileNotFoundError(f'{what}: {folder} has no folders of images; {hint}')
    expected = {'model.head.num_classes': head.get('num_classes', len(folders))}
    if name_of(dataset['type']) == 'ImageNet' and 'classes' not in (dataset.get('metainfo') or {}):
        expected['ImageNet'] = 1000
    for name, number in expected.items():
        if number != len(folders):
            raise UserValueError(
                f'{what}: {folder} has folders of {len(folders)} classes, but {name} has {number}; '
                f'for classes of your own set model.head.num_classes={len(folders)} and '
                f'{loader}.dataset.metainfo.classes=None (their names are those of the folders)'
            )


def _has_backend(part: Mapping[str, Any]) -> bool:
    """Whether something else than the local disk answers for the files of a part of a config."""
    backend = part.get('backend_args') or part.get('file_client_args') or {}
    return backend.get('backend', 'local') not in ('local', 'disk', 'atomic')


def _is_remote(dataset: Mapping[str, Any]) -> bool:
    """Whether a step of a data set's pipeline, or it itself, reads through such a backend."""
    keys = ('backend_args', 'file_client_args')
    return any(_has_backend(part) for key in keys for part in _dicts_with(dataset, key))


def _dicts_with(node: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """All dicts inside a config that have a value for a key."""
    if isinstance(node, Mapping):
        if node.get(key):
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts_with(child, key)
