"""mmdet's own command line tools, on our configs: what ``tools/*.py`` call."""

import runpy
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
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
    'self-attention was released: pre-train your own), or train from scratch with '
    '--cfg-options model.backbone.init_cfg=None'
)
LOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}
EVALUATORS = {'train': ('val_evaluator',), 'test': ('test_evaluator',)}


def run_tool(name: str) -> None:
    """Run the tool of the installed mmdet, with this process's command line arguments.

    Before that, the files that the config names are looked for, so that a missing one costs a
    second and not a training; and without a GPU, distributed processes are joined through gloo.

    Args:
        name (str): 'train' or 'test'.
    """
    # mmengine imports it once for every base file.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    if not {'-h', '--help'} & set(sys.argv):
        args, cfg = _parse_arguments(name)
        try:
            check_files(cfg, name)
            if name == 'test':
                _check_exists(args.checkpoint, 'checkpoint', 'train one with tools/train.py')
        except FileNotFoundError as error:
            sys.exit(f'error: {error}')
        if args.launcher == 'pytorch' and not torch.cuda.is_available():
            _join_on_cpu(cfg)
    runpy.run_path(str(find_mmdet_tool(f'{name}.py')), run_name='__main__')


def find_mmdet_tool(name: str) -> Path:
    """Path of a tool that the installed mmdet ships.

    Raises:
        FileNotFoundError: If this installation of mmdet has none.
    """
    tool = Path(find_spec('mmdet').origin).parent / '.mim' / 'tools' / name
    if not tool.is_file():
        raise FileNotFoundError(
            f"mmdet's own tools/{name} is not at {tool}: install mmdet as a package "
            '(pip install mmdet==3.3.0)'
        )
    return tool


def check_files(cfg: Mapping[str, Any], tool: str) -> None:
    """Look for the annotation files, image folders and checkpoints that a config names.

    Args:
        cfg (Mapping[str, Any]): A whole config.
        tool (str): 'train' or 'test'.

    Raises:
        FileNotFoundError: For the first that does not exist, with where to get it.
    """
    for loader in LOADERS[tool]:
        for dataset in _dicts_with(cfg.get(loader), 'ann_file'):
            root = dataset.get('data_root') or ''
            _check_exists(join_path(root, dataset['ann_file']), f'annotation file of {loader}')
            for kind, folder in (dataset.get('data_prefix') or {}).items():
                hint = STUFF_HINT if kind == 'seg' else COCO_HINT
                _check_exists(join_path(root, folder), f'{kind} folder of {loader}', hint)
    for evaluator in EVALUATORS[tool]:
        for metric in _dicts_with(cfg.get(evaluator), 'ann_file'):
            _check_exists(metric['ann_file'], f'annotation file of {evaluator}')
    if tool == 'train':
        for init_cfg in _dicts_with(cfg.get('model'), 'checkpoint'):
            _check_exists(init_cfg['checkpoint'], 'pre-trained checkpoint', CHECKPOINT_HINT)


def _check_exists(path: str, what: str, hint: str = COCO_HINT) -> None:
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


def _parse_arguments(tool: str) -> tuple[Namespace, Config]:
    """What mmdet's tool is about to be told, and the config it is about to load."""
    parser = ArgumentParser()
    parser.add_argument('config')
    if tool == 'test':
        parser.add_argument('checkpoint')
    parser.add_argument('--launcher', default='none')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args, _ = parser.parse_known_args()
    try:
        cfg = Config.fromfile(args.config)
    except FileNotFoundError as error:
        if not Path(args.config).is_file():
            raise
        raise FileNotFoundError(
            f'{args.config}: a config in its _base_, or in that of one of them, does not exist: '
            f'{error.filename or error}'
        ) from error
    cfg.merge_from_dict(args.cfg_options)
    return args, cfg


def _join_on_cpu(cfg: Config) -> None:
    """Join the processes here: mmengine's launcher would ask every one of them for a GPU."""
    dist.init_process_group('gloo')
    wrapper = {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }
    options = [f'model_wrapper_cfg.{key}={value}' for key, value in wrapper.items()]
    sys.argv += ['--cfg-options', *options]
