"""mmdet's and mmpretrain's own command line tools, on our configs: what ``tools/*.py`` call."""

import runpy
import sys
import warnings
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction

from ..configs import load_config
from ..preflight import TRAIN_HINT, check_exists, check_files


def run_tool(name: str) -> None:
    """Run the tool of mmdet or, for a classifier, mmpretrain, with this process's arguments.

    Before that, the files that the config names are looked for, so that a missing one costs a
    second and not a training; and without a GPU, distributed processes are joined through gloo.

    Args:
        name (str): 'train' or 'test'.
    """
    # mmengine imports it once for every base file.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    package = 'mmdet'
    if not {'-h', '--help'} & set(sys.argv):
        try:
            args, cfg = _parse_arguments(name)
            check_files(cfg, name)
            if name == 'test':
                check_exists(args.checkpoint, 'checkpoint', TRAIN_HINT)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(f'error: {error}')
        if args.launcher == 'pytorch' and not torch.cuda.is_available():
            _join_on_cpu(cfg)
        if cfg.get('default_scope') == 'mmpretrain':
            package = 'mmpretrain'
    runpy.run_path(str(find_tool(f'{name}.py', package)), run_name='__main__')


def find_tool(name: str, package: str = 'mmdet') -> Path:
    """Path of a tool that the installed mmdet or mmpretrain ships.

    Raises:
        FileNotFoundError: If this installation of the package has none.
    """
    tool = Path(find_spec(package).origin).parent / '.mim' / 'tools' / name
    if not tool.is_file():
        raise FileNotFoundError(
            f"{package}'s own tools/{name} is not at {tool}: install {package} as a package "
            f'(pip install {package})'
        )
    return tool


def _parse_arguments(tool: str) -> tuple[Namespace, Config]:
    """What the tool is about to be told, and the config it is about to load."""
    parser = ArgumentParser()
    parser.add_argument('config')
    if tool == 'test':
        parser.add_argument('checkpoint')
    parser.add_argument('--launcher', default='none')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args, _ = parser.parse_known_args()
    return args, load_config(args.config, args.cfg_options)


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
