"""mmdet's and mmpretrain's own command line tools, on our configs: what ``tools/*.py`` call."""

import os
import runpy
import signal
import sys
import warnings
from argparse import Namespace
from importlib.util import find_spec
from multiprocessing import parent_process
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config

from ..utils.command import command
from ..utils.configs import PRETRAIN_HINT, change_config, is_config, read_config
from ..utils.devices import unused_gpu
from ..utils.errors import UserFileNotFoundError, UserValueError
from ..utils.paths import TRAIN_HINT, check_exists, check_output
from ..utils.text import shown
from .lock import lock_work_dir
from .preflight import check_config
from .resume import check_start

# The default hooks that a runner has without being told.
MMENGINES_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
)


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
    if os.environ.get('RANK', '0') == '0' and (problem := unused_gpu()):
        print(f'warning: {problem}', file=sys.stderr, flush=True)
    check_config(cfg, name)
    end_workers_that_cannot_send()
    if args.work_dir:
        check_output(args.work_dir, '--work-dir', is_folder=True)
    if name == 'train':
        check_start(args.resume, cfg)
        if (cfg.get('default_hooks') or {}).get('lock', True):  # not if it is to be left out
            lock_work_dir(args.work_dir or cfg.get('work_dir'), args.config, args.launcher)
    if name == 'test':
        check_exists(args.checkpoint, 'checkpoint', TRAIN_HINT)
        if args.out:
            check_output(args.out, '--out', ('.pkl', '.pickle'))
    if args.launcher == 'pytorch' and not torch.cuda.is_available():
        _join_on_cpu(args, cfg)
    _leave_out_hooks(args, cfg)
    tool['main'].__globals__['parse_args'] = lambda: args
    tool['main']()


def end_workers_that_cannot_send() -> None:
    """Let a worker of a data loader end if it cannot hand a batch on: else it is waited for.

    Python's queue says why, such as a full /dev/shm, and goes on without the batch. Workers have
    this from the process that forks them.
    """

    def end(e: Exception, obj: Any) -> None:
        print(f'a worker cannot hand a batch on: {shown(e, 300)}', file=sys.stderr, flush=True)
        if parent_process():
            os.kill(os.getpid(), signal.SIGKILL)

    Queue._on_queue_feeder_error = staticmethod(end)


def _choose_tool(name: str) -> tuple[dict[str, Any], Namespace, Config]:
    """The tool of the package that a config belongs to, what it is told, and the config."""
    path = next((a for a in sys.argv[1:] if is_config(a) and Path(a).is_file()), None)
    cfg = read_config(path) if path else Config()  # without one, the tool says what is wrong
    package = 'mmpretrain' if cfg.get('default_scope') == 'mmpretrain' else 'mmdet'
    tool = _load_tool(find_tool(f'{name}.py', package))
    args = tool['parse_args']()
    if args.config != path:
        cfg = read_config(args.config)
    change_config(cfg, args.cfg_options or {})
    return tool, args, cfg


def find_tool(name: str, package: str = 'mmdet') -> Path:
    """Path of a tool that the installed mmdet or mmpretrain ships.

    Raises:
        FileNotFoundError: If this installation of the package has none.
    """
    spec = find_spec(package)
    if spec is None:
        raise UserValueError(PRETRAIN_HINT)
    tool = Path(spec.origin).parent / '.mim' / 'tools' / name
    if not tool.is_file():
        raise UserFileNotFoundError(
            f"{package}'s own tools/{name} is not at {tool}: install {package} as a package "
            f'(pip install {package})'
        )
    return tool


def _load_tool(path: Path) -> dict[str, Any]:
    """What a tool defines.

    Raises:
        ImportError: If its ``main`` would read the arguments again, instead of taking ours.
    """
    tool = runpy.run_path(str(path))
    called = tool['main'].__code__.co_names if 'main' in tool else ()
    if 'parse_args' not in tool or 'parse_args' not in called:
        raise ImportError(
            f'{path} is not what lesa_mmdet knows: it has no main() that calls parse_args(); '
            'install one of the versions in requirements/'
        )
    return tool


def _join_on_cpu(args: Namespace, cfg: Config) -> None:
    """Join the processes here: mmengine's launcher would ask every one of them for a GPU."""
    dist.init_process_group('gloo')
    wrapper = {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }
    options = {f'model_wrapper_cfg.{key}': value for key, value in wrapper.items()}
    args.cfg_options = {**(args.cfg_options or {}), **options}


def _leave_out_hooks(args: Namespace, cfg: Config) -> None:
    """Take out default hooks that are None: mmengine does so for its own, and stops at others."""
    hooks = {
        name: hook
        for name, hook in (cfg.get('default_hooks') or {}).items()
        if hook is not None or name in MMENGINES_HOOKS
    }
    if len(hooks) < len(cfg.get('default_hooks') or {}):
        options = {
            key: value
            for key, value in (args.cfg_options or {}).items()
            if key.partition('.')[0] != 'default_hooks'
        }
        args.cfg_options = {**options, 'default_hooks': {**hooks, '_delete_': True}}
