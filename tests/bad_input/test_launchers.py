"""What the launchers refuse, and what must not confuse them. What they start: tests/runs."""

import json
import os
import subprocess
import sys

import pytest

from helpers.paths import ROOT

LAUNCHERS = [f'{kind}_{tool}.sh' for kind in ('dist', 'slurm') for tool in ('train', 'test')]

# A `python` that finds mmdet's scripts while an import prints, and notes what else it is to run.
NOTING_PYTHON = f"""#!{sys.executable}
import json, os, sys
from importlib.util import find_spec
if sys.argv[1] == '-c':
    print('a package says hello')
    if 'NO_MMDET' in os.environ:
        sys.exit('ModuleNotFoundError')
    [folder] = find_spec('mmdet').submodule_search_locations
    print(os.environ.get('MMDET', folder))
    sys.exit()
json.dump([os.getpid(), *sys.argv[1:]], open(os.environ['NOTE'], 'w'))
"""


@pytest.fixture
def launch(tmp_path):
    """Call a launcher; its exit code, what it said, and what it started: process, arguments."""
    for name in ('python', 'srun'):
        program = tmp_path / 'bin' / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(NOTING_PYTHON, encoding='utf-8')
        program.chmod(0o755)
    note = tmp_path / 'note.json'

    def call(name, *arguments, **env):
        path = f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}'
        process = subprocess.Popen(
            [f'tools/{name}', *arguments],
            cwd=ROOT,
            env={**os.environ, 'PATH': path, 'NOTE': str(note), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding='utf-8',
        )
        out, _ = process.communicate()
        started = json.loads(note.read_text(encoding='utf-8')) if note.exists() else None
        return process, out, started

    return call


@pytest.mark.parametrize('name', LAUNCHERS)
def test_without_arguments_they_say_their_usage(name, launch):
    process, out, started = launch(name)
    assert process.returncode == 2 and started is None
    assert f'usage: tools/{name} ' in out and 'and got 0' in out
    process, out, started = launch(name, '--help')
    assert process.returncode == 0 and started is None
    assert out.startswith(f'usage: tools/{name} ') and 'error' not in out


@pytest.mark.parametrize('gpus', ['0', '-1', '--amp', 'two'])
def test_gpus_is_a_number(gpus, launch):
    process, out, started = launch('dist_train.sh', 'config.py', gpus)
    assert process.returncode == 2 and started is None
    assert f"error: GPUS is '{gpus}', and has to be a number from 1" in out


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_arguments_stay_whole(tool, launch):
    files = ['a config.py'] if tool == 'train' else ['a config.py', 'an epoch_1.pth']
    options = ['--work-dir', 'a dir', '--cfg-options', 'scale=(1, 2)', 'tools/*.py']
    process, out, started = launch(f'dist_{tool}.sh', *files, '2', *options)
    assert process.returncode == 0, out
    tail = [f'tools/{tool}.py', *files, '--launcher', 'pytorch', *options]
    assert started[-len(tail) :] == tail


@pytest.mark.parametrize('name', ['slurm_train.sh', 'slurm_test.sh'])
def test_spaces_that_slurms_scripts_would_split(name, launch):
    process, out, started = launch(name, 'gpu', 'job', 'a config.py', 'target')
    assert process.returncode == 2 and started is None
    assert "error: 'a config.py' has a space" in out


@pytest.mark.parametrize('name', ['dist_train.sh', 'slurm_train.sh'])
def test_signals_reach_what_is_started(name, launch):
    """The launcher becomes what it starts, so that no process is left behind."""
    arguments = (
        ['config.py', '2'] if name.startswith('dist') else ['gpu', 'job', 'config.py', 'out']
    )
    process, out, started = launch(name, *arguments)
    assert process.returncode == 0, out
    assert started[0] == process.pid


def test_python_without_the_package(launch):
    process, out, started = launch('dist_train.sh', 'config.py', '2', NO_MMDET='1')
    assert process.returncode == 1 and started is None
    assert out == 'error: python has no mmdet: is its environment activated?\n'


def test_mmdet_without_its_tools(launch, tmp_path):
    process, out, started = launch('dist_train.sh', 'config.py', '2', MMDET=str(tmp_path))
    assert process.returncode == 1 and started is None
    assert out.startswith(f'error: mmdet has no {tmp_path}/.mim/tools/dist_train.sh: install it')
