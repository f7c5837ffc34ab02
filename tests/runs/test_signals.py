"""SIGTERM and Ctrl-C end every launcher with all that it has started, workers included.

So do they end benchmarks: what runs on unseen is measured by whatever is run next.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config

from helpers.bad_input import Place
from helpers.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='processes are found in /proc'),
]

GRACE = 10  # seconds until nothing may be left
STARTED = 600


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def descendants(pid):
    """Processes that a process has started, and those that they have, by when they were started.

    torchrun puts what it starts into sessions of their own. What is forked for a client is named
    after it, tests/patches/ranks.py.
    """
    children, started = {}, {}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            name, _, fields = stat.read_text(encoding='utf-8').rpartition(')')
        except OSError:
            continue
        fields, child = fields.split(), int(stat.parent.name)
        client = re.search(r'\(of (\d+)$', name)
        children.setdefault(int(client[1] if client else fields[1]), []).append(child)
        if fields[0] != 'Z':  # dead, and waits for its parent
            started[child] = fields[19]
    found, new = {}, [pid]
    while new:
        found.update({child: started[child] for child in new if child in started})
        new = [grandchild for child in new for grandchild in children.get(child, ())]
    return found


def alive(family):
    """Those processes of a family that still run."""
    found = {}
    for pid, start in family.items():
        try:
            fields = (
                Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()
            )
            command = Path(f'/proc/{pid}/cmdline').read_text(encoding='utf-8').replace('\0', ' ')
        except OSError:
            continue
        if fields[0] != 'Z' and fields[19] == start:
            found[pid] = command
    return found


@pytest.fixture
def interrupt(ranks, tmp_path, port):
    """Start a command, signal it once it is at work, and say what is left after a while.

    Ctrl-C goes to all processes of a terminal, SIGTERM to the one that was started.
    """
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = {**os.environ, **ranks, 'PATH': path, 'PORT': port}
    return partial(_interrupt, env=env, log=tmp_path / 'log.txt')


def _interrupt(command, number, sign, processes, ranks=0, *, log, env):
    with log.open('w', encoding='utf-8') as out:
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=env, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    processes += ranks if 'PYTHON_EXEC' in env else 0  # what is forked has a client
    family = {}
    try:
        deadline = time.monotonic() + STARTED
        while sign not in log.read_text(encoding='utf-8') or len(family) < processes:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(
                encoding='utf-8'
            )[-3000:]
            time.sleep(0.2)
            family = descendants(process.pid)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        deadline = time.monotonic() + GRACE
        while alive(family) and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.1)
        return alive(family), process.wait(1)
    finally:
        for pid in alive(family):
            os.kill(pid, signal.SIGKILL)


def long_training(cfg):
    """Epochs without end, whose images two workers read, logged one by one."""
    cfg.train_cfg.max_epochs = 10_000
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = 10_000
    cfg.train_cfg.val_interval = 10_000
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=10_000, dataset=cfg.train_dataloader.dataset
    )
    cfg.train_dataloader.num_workers = 2


def long_test(cfg):
    """Test images without end."""
    cfg.default_hooks.logger.interval = 1
    cfg.test_dataloader.dataset = dict(
        type='RepeatDataset', times=10_000, dataset=cfg.test_dataloader.dataset
    )
    cfg.test_dataloader.num_workers = 2


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('launcher', ['train', 'dist_train', 'test', 'dist_test'])
def test_launchers(launcher, number, place, interrupt):
    place.data()
    config = place.config(long_test if 'test' in launcher else long_training)
    files = [config, place.checkpoint(config)] if 'test' in launcher else [config]
    if launcher.startswith('dist'):
        command, processes = [f'tools/{launcher}.sh', *files, 2], (7, 2)
    else:
        command, processes = [sys.executable, f'tools/{launcher}.py', *files], (3,)
    sign = 'Epoch(test)' if 'test' in launcher else 'Epoch(train)'
    left, code = interrupt(command, number, sign, *processes)
    assert left == {} and code != 0


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('launcher', ['slurm_train', 'slurm_test'])
def test_slurm(launcher, number, place, interrupt):
    """The scripts pass on what srun, which becomes what it starts here, is to end with."""
    python = f'[ "$1" != -c ] || exec {sys.executable} "$@"; echo "at work: $*"; exec sleep 600'
    for name, does in (('srun', 'while [ "$1" != python ]; do shift; done; exec "$@"'),
                       ('python', python)):  # fmt: skip
        place.write(f'bin/{name}', f'#!/bin/bash\n{does}\n').chmod(0o755)
    command = ['bash', '-c', f'PATH={place / "bin"}:$PATH exec "$@"', 'bash']
    command += [f'tools/{launcher}.sh', 'gpu', 'job', 'config.py', 'epoch_1.pth']
    left, code = interrupt(command, number, 'at work', 1)
    assert left == {} and code != 0


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_demo(number, tmp_path, shapes_of_the_demo, interrupt):
    options = ['--cfg-options', 'default_hooks.logger.interval=1']
    command = [sys.executable, 'tools/demo.py', '--work-dir', tmp_path / 'demo', *options]
    left, code = interrupt(command, number, 'Epoch(train)', 4, 1)
    assert left == {} and code != 0


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_test_dev(number, place, interrupt):
    many = json.loads(
        (place.data() / 'annotations' / 'instances_val.json').read_text(encoding='utf-8')
    )
    many['images'] = [dict(many['images'][0], id=index) for index in range(20_000)]
    config = place.config(long_test)
    cfg = Config.fromfile(config)
    cfg.test_dataloader.dataset = cfg.test_dataloader.dataset.dataset
    cfg.dump(config)
    command = [sys.executable, 'tools/test_dev.py', config, place.checkpoint(config), '--gpus', 2]
    command += ['--work-dir', place / 'test-dev', '--img', place / 'data' / 'val']
    command += ['--ann-file', place.write('many.json', json.dumps(many))]
    left, code = interrupt(command, number, 'Epoch(test)', 8, 2)
    assert left == {} and code != 0


def test_a_measurement(interrupt):
    options = ['--part', 'attention', '--form', 'auto', '--size', 128, '--seconds', 1000]
    command = [sys.executable, 'benchmarks/attention.py', *options]
    left, code = interrupt(command, signal.SIGTERM, 'attention 128', 3)
    assert left == {} and code != 0


def test_a_study(tmp_path, interrupt):
    options = ['--jobs', 2, '--results', tmp_path / 'study.json', '--work-dir', tmp_path / 'study']
    command = [sys.executable, 'benchmarks/study.py', *options]
    left, code = interrupt(command, signal.SIGTERM, '2 side by side', 5)
    assert left == {} and code != 0
