"""What the launchers start, on one machine, on several, and under slurm."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from lesa_mmdet.datasets.shapes import generate

from helpers.paths import DEMO, ROOT

CONFIG = str(DEMO.relative_to(ROOT))


@pytest.fixture
def intercept(tmp_path):
    """Put a program on PATH that runs some Python, instead of what has that name."""

    def put_on_path(name, then):
        program = tmp_path / 'bin' / name
        program.parent.mkdir()
        called = tmp_path / 'called.json'
        head = f'#!{sys.executable}\nimport json, os, sys\nnote = {str(called)!r}\n'
        program.write_text(head + then, encoding='utf-8')
        program.chmod(0o755)
        search = [str(program.parent), str(Path(sys.executable).parent), os.environ['PATH']]
        return os.pathsep.join(search), called

    return put_on_path


NOTE = "json.dump(sys.argv[1:], open(note, 'w'))"
# The launchers ask Python where mmdet is, and only then start it.
NOTE_UNLESS_CODE = f"""if sys.argv[1] == '-c':
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
{NOTE}"""


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_two_machines_of_eight(tool, intercept, run):
    path, called = intercept('python', NOTE_UNLESS_CODE)
    files = [CONFIG] if tool == 'train' else [CONFIG, 'epoch_1.pth']
    env = {'NNODES': '2', 'NODE_RANK': '1', 'MASTER_ADDR': 'node-0', 'PORT': '29511'}
    run(f'tools/dist_{tool}.sh', *files, 8, '--cfg-options', 'a.b=1', PATH=path, **env)
    assert json.loads(called.read_text(encoding='utf-8')) == [
        *('-m', 'torch.distributed.launch', '--nnodes=2', '--node_rank=1'),
        *('--master_addr=node-0', '--nproc_per_node=8', '--master_port=29511'),
        *(f'tools/{tool}.py', *files, '--launcher', 'pytorch', '--cfg-options', 'a.b=1'),
    ]


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_slurm(tool, intercept, run):
    path, called = intercept('srun', NOTE)
    script = ROOT / 'tools' / f'slurm_{tool}.sh'
    env = {'GPUS': '16', 'GPUS_PER_NODE': '4', 'CPUS_PER_TASK': '6', 'SRUN_ARGS': '--exclude=n1'}
    # From another folder: the config may be a project's own.
    command = f'cd {called.parent} && {script} gpu lesa my.py target --cfg-options a.b=1'
    run('bash', '-c', command, PATH=path, **env)
    files = ['my.py', '--work-dir=target'] if tool == 'train' else ['my.py', 'target']
    assert json.loads(called.read_text(encoding='utf-8')) == [
        *('-p', 'gpu', '--job-name=lesa', '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4'),
        *('--cpus-per-task=6', '--kill-on-bad-exit=1', '--exclude=n1'),
        *('python', '-u', str(ROOT / 'tools' / f'{tool}.py'), *files),
        *('--launcher=slurm', '--cfg-options', 'a.b=1'),
    ]


def test_what_slurm_starts_is_mmdets_tool(intercept, run):
    from_python_on = "os.execvp('python', sys.argv[sys.argv.index('python'):])"
    path, _ = intercept('srun', from_python_on)
    out = run('tools/slurm_train.sh', 'gpu', 'lesa', CONFIG, 'work', '--help', PATH=path)
    assert '--auto-scale-lr' in out and '--amp' in out


@pytest.mark.slow
def test_amp_is_mmdets(run, tmp_path):
    root = generate(tmp_path / 'shapes', num_train=4, num_val=1)
    data = [f'{split}_dataloader.dataset.data_root={root}/' for split in ('train', 'val', 'test')]
    data += [f'val_evaluator.ann_file={root}/annotations/val.json', 'train_cfg.max_epochs=1']
    command = ('tools/train.py', CONFIG, '--amp', '--work-dir', tmp_path / 'amp')
    out = run(*command, '--cfg-options', *data, succeeds=torch.cuda.is_available())
    if not torch.cuda.is_available():
        assert 'is only available training on gpu' in out
