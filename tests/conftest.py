import patches  # first: an empty yapf takes the place of the real one

# isort: split
import gc
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from helpers.paths import COCO_ROOT, ROOT
from patches.forked import execute, run_forked
from patches.ranks import ranks_server

# What programs that tests start inherit. Of small models, threads would wait for each other, and
# with -O, for which pip has compiled nothing, each program would compile torch anew, for seconds.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')  # read once, while the package is imported

if not patches.PLAIN:
    import patches.quick_mmengine  # noqa: F401

settings.register_profile('untimed', deadline=None)  # machines may be busy
settings.load_profile('untimed')

# What runs in the background may ignore Ctrl-C, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Programs find the stubs; the workers that run tests, which this one starts, need none."""
    if config.getoption('dist', 'no') == 'no':
        path = [*patches.STUBS, os.environ.get('PYTHONPATH')]
        os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, path))


def pytest_collection_finish():
    """The collector need not go through all that has been imported, again and again."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Files with whole runs first: of several workers none is then left with a long one."""
    long = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope='session')
def mmpretrain():
    """Skips what needs mmpretrain where it is not installed."""
    if importlib.util.find_spec('mmpretrain') is None:
        pytest.skip('mmpretrain is not installed: run make test')


@pytest.fixture(scope='module', autouse=True)
def scope_of_a_file():
    """A loaded classifier leaves its scope behind, in which mmdet's models are not found."""
    yield
    left = DefaultScope._instance_dict
    for name in [name for name, scope in left.items() if scope.scope_name == 'mmpretrain']:
        del left[name]


HIDE_MMPRETRAIN = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name == 'mmpretrain' else find(name, *more)
"""


@pytest.fixture
def without_mmpretrain(tmp_path):
    """Environment variables of processes that cannot import mmpretrain."""
    (tmp_path / 'sitecustomize.py').write_text(HIDE_MMPRETRAIN, encoding='utf-8')
    path = filter(None, [str(tmp_path), os.environ.get('PYTHONPATH')])
    return dict(PYTHONPATH=os.pathsep.join(path))


@pytest.fixture(scope='session')
def coco_root():
    """Root of real COCO images: train2017/, val2017/, annotations/instances_*_mini.json."""
    if not (COCO_ROOT / 'annotations' / 'instances_val2017_mini.json').is_file():
        pytest.skip(f'no COCO images in {COCO_ROOT}: set LESA_COCO_ROOT')
    return COCO_ROOT


@pytest.fixture(scope='session')
def ranks():
    """Environment variables with which distributed processes are forked with mmdet imported."""
    if patches.PLAIN or sys.platform != 'linux':
        yield {}
        return
    with ranks_server() as client:
        yield {'PYTHON_EXEC': str(client)}


@pytest.fixture
def run(ranks, tmp_path_factory):
    """Run a command of the repository as a user would; fails with its output.

    Python programs run in a process forked with mmdet imported, by default those without an
    environment of their own: that comes too late for what is imported.
    """

    def run_command(*command, succeeds=True, forked=None, **env):
        command = [str(part) for part in command]
        is_program = command[0].endswith('.py')
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        of_ranks = {} if any(name.startswith('PYTHON') for name in env) else ranks
        if is_program and not patches.PLAIN and (not env if forked is None else forked):
            output = tmp_path_factory.mktemp('run') / 'output.txt'
            code = run_forked(execute, command, {'PATH': path, **of_ranks, **env}, output=output)
            printed = output.read_text(encoding='utf-8')
        else:
            command = [sys.executable] * is_program + command
            result = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, 'PATH': path, **of_ranks, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding='utf-8',
            )
            code, printed = result.returncode, result.stdout
        assert (code == 0) == succeeds, printed[-5000:]
        return printed

    return run_command


@pytest.fixture
def port():
    """A free port, for the PORT of launchers."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def told(monkeypatch):
    """Lines that were logged, by whichever logger of mmengine."""
    lines = []
    handle = MMLogger.callHandlers

    def note(self, record):
        lines.append(record.getMessage())
        handle(self, record)

    monkeypatch.setattr(MMLogger, 'callHandlers', note)
    return lines
