"""mmdet's and mmpretrain's own command line tools, on our configs: what ``tools/*.py`` call."""

import runpy
import sys
import warnings
from argparse import Namespace
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config

from ..utils.command import command
from ..utils.configs import load_config
from ..utils.errors import UserFileNotFoundError, UserValueError
from ..utils.paths import TRAIN_HINT, check_exists, check_output
from .lock import lock_work_dir
from .preflight import check_config
from .resume import check_start


@command
def run_tool(name: str) -> None:
    """Run the tool of mmdet or, for a classifier, mmpretrain, with this process's arguments.

    Before that, the files that the config names are looked for, so that a missing one costs a
    second and not a training; and without a GPU, distributed processes are joined through gloo.

    Args:
        name (str): 'train' or 'test'.
    """
    # mmengine imports it once for every base file.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    tool, args, cfg = _choose_tool(name)
    check_config(cfg, name)
    if args.work_dir:
        check_output(args.work_dir, '--work-dir', is_folder=True)
    if name == 'train':
        check_start(args.resume, cfg)
        lock_work_dir(args.work_dir or cfg.get('work_dir'), args.config, args.launcher)
    if name == 'test':
        check_exists(args.checkpoint, 'checkpoint', TRAIN_HINT)
        if args.out:
            check_output(args.out, '--out', ('.pkl', '.pickle'))
    if args.launcher == 'pytorch' and not torch.cuda.is_available():
        _join_on_cpu(cfg)
    tool['main']()


def _choose_tool(name: str) -> tuple[dict[str, Any], Namespace, Config]:
    """The tool of the package that a config belongs to, what it is told, and the config."""
    tools = {}
    for package in ('mmdet', 'mmpretrain'):
        if find_spec(package) is None:
            continue
        tool = tools[package] = runpy.run_path(str(find_tool(f'{name}.py', package)))
        try:
            with redirect_stderr(StringIO()):
                args = tool['parse_args']()
        except SystemExit as error:
            if not error.code:  # --help
                raise
            continue  # the other package may know the argument
        cfg = load_config(args.config, args.cfg_options)
        if (cfg.get('default_scope') == 'mmpretrain') == (package == 'mmpretrain'):
            return tool, args, cfg
    tools['mmdet']['parse_args']()  # says what is wrong
    raise UserValueError(f'{" ".join(sys.argv[1:])}: neither mmdet nor mmpretrain takes these')


def find_tool(name: str, package: str = 'mmdet') -> Path:
    """Path of a tool that the installed mmdet or mmpretrain ships.

    Raises:
        FileNotFoundError: If this installation of the package has none.
    """
    tool = Path(find_spec(package).origin).parent / '.mim' / 'tools' / name
    if not tool.is_file():
        raise UserFileNotFoundError(
            f"{package}'s own tools/{name} is not at {tool}: install {package} as a package "
            f'(pip install {package})'
        )
    return tool


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
