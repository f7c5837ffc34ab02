"""A training that is killed and resumed ends where an uninterrupted one does, bit for bit."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmengine.config import Config

from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.datasets.shapes import generate
from lesa_mmdet.visualization.curves import read_scalars

from helpers.paths import DEMO, ROOT
from helpers.training import kill, start

pytestmark = pytest.mark.slow

CONFIG = str(DEMO.relative_to(ROOT))
EPOCHS, ITERATIONS = 3, 8


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    """Options of a short training, evaluated after every epoch, that logs every iteration."""
    root = generate(tmp_path_factory.mktemp('data') / 'shapes', num_train=ITERATIONS, num_val=2)
    return [
        '--cfg-options',
        *(f'{split}_dataloader.dataset.data_root={root}/' for split in ('train', 'val', 'test')),
        f'val_evaluator.ann_file={root}/annotations/val.json',
        f'test_evaluator.ann_file={root}/annotations/val.json',
        'train_dataloader.batch_size=1',
        f'train_cfg.max_epochs={EPOCHS}',
        'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=-1',
    ]


def logged(work_dir):
    """What was logged at each iteration and each evaluation, except for times."""
    return [
        {key: value for key, value in entry.items() if 'time' not in key}
        for entry in read_scalars(work_dir)
    ]


def losses(work_dir):
    """What was logged at each iteration, times apart; of a repeated one what was logged last."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [line for log in logs for line in log.read_text(encoding='utf-8').splitlines(True)]
    entries = [json.loads(line) for line in lines if line.endswith('}\n')]
    return {
        entry['iter']: {key: value for key, value in entry.items() if 'time' not in key}
        for entry in entries
        if 'loss' in entry
    }


def assert_same(one, other):
    """Compare nested checkpoints exactly."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def kill_in_epoch(epoch, work_dir, command):
    """Start a training and SIGKILL it, workers and all, once it has logged steps of an epoch."""
    output = work_dir.with_suffix('.txt')
    process = start(*command, output=output)
    while True:
        assert process.is_alive(), output.read_text(encoding='utf-8')[-5000:]
        logs = [
            path.read_text(encoding='utf-8') for path in work_dir.glob('*/vis_data/scalars.json')
        ]
        if ''.join(logs).count(f'"epoch": {epoch}') >= 2:
            break
        time.sleep(0.01)
    kill(process)


def test_killed_run_continues_exactly(run, options, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    run('tools/train.py', CONFIG, '--work-dir', whole, *options)
    expected = read_checkpoint(whole / f'epoch_{EPOCHS}.pth')

    seed = f'randomness.seed={expected["meta"]["seed"]}'
    kill_in_epoch(2, parts, ['tools/train.py', CONFIG, '--work-dir', parts, *options, seed])
    assert (parts / 'last_checkpoint').read_text(encoding='utf-8').endswith('epoch_1.pth')
    killed = [entry for entry in logged(parts) if entry.get('epoch') == 2]
    assert 2 <= len(killed) < ITERATIONS

    # The seed is not named again: the checkpoint has it.
    out = run('tools/train.py', CONFIG, '--work-dir', parts, '--resume', *options)
    assert f'resumed epoch: 1, iter: {ITERATIONS}' in out
    assert logged(parts) == logged(whole)
    assert len([entry for entry in logged(parts) if 'loss' in entry]) == EPOCHS * ITERATIONS
    resumed = read_checkpoint(parts / f'epoch_{EPOCHS}.pth')
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(resumed[key], expected[key])


@pytest.mark.parametrize('num_workers', [0, 2])
def test_killed_run_by_iterations_continues_exactly(num_workers, run, options, tmp_path):
    """It draws samples of boxes, flips and orders, and validates in between."""
    cfg = Config.fromfile(CONFIG)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=12, val_interval=6)
    cfg.log_processor.by_epoch = False
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    cfg.train_dataloader.num_workers = num_workers
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=4)
    cfg.dump(tmp_path / 'by_iterations.py')
    changes = [change for change in options if 'train_cfg' not in change]
    command = ['tools/train.py', tmp_path / 'by_iterations.py', *changes, '--work-dir']
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    run(*command, whole)
    expected = read_checkpoint(whole / 'iter_12.pth')

    output = tmp_path / 'parts.txt'
    seed = f'randomness.seed={expected["meta"]["seed"]}'
    process = start(*command[:-1], seed, '--work-dir', parts, output=output)
    while len(losses(parts)) < 5:
        assert process.is_alive(), output.read_text(encoding='utf-8')[-5000:]
        time.sleep(0.01)
    kill(process)
    out = run(*command, parts, '--resume')
    assert 'resumed epoch: 0, iter: 4' in out or 'iter: 8' in out
    assert losses(parts) == losses(whole) and len(losses(whole)) == 12
    resumed = read_checkpoint(parts / 'iter_12.pth')
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(resumed[key], expected[key])


def test_two_machines_train_and_one_continues_exactly(run, options, port, tmp_path):
    """Two processes, first as two machines of one each, after the first epoch as one of two."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    options = [
        '--auto-scale-lr',
        *options,
        'randomness.seed=None',
        'randomness.diff_rank_seed=True',
    ]

    def run_node(rank):
        command = ('tools/dist_train.sh', CONFIG, 1, '--work-dir', whole, *options)
        return run(*command, NNODES='2', NODE_RANK=str(rank), PORT=port)

    with ThreadPoolExecutor(2) as nodes:
        out, _ = nodes.map(run_node, (0, 1))
    assert 'GPU number: 2' in out
    # The rate in the config is for 4 images, here are 2 processes of 1.
    assert 'Scaling the original LR by 0.5' in out
    assert logged(whole)[0]['lr'] == pytest.approx(0.01 * 0.0005)

    checkpoint = ('--resume', whole / 'epoch_1.pth')
    run('tools/dist_train.sh', CONFIG, 2, '--work-dir', parts, *checkpoint, *options, PORT=port)
    assert logged(parts) == [e for e in logged(whole) if e.get('epoch', e['step']) > 1]
    assert len([entry for entry in logged(parts) if 'loss' in entry]) == 2 * ITERATIONS // 2
    expected, resumed = (
        read_checkpoint(run_dir / f'epoch_{EPOCHS}.pth') for run_dir in (whole, parts)
    )
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(resumed[key], expected[key])
