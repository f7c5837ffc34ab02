"""A training that is killed at any moment goes on, and ends where an uninterrupted one does.

It saves after every three iterations and keeps one checkpoint. ``LESA_KILLS=20`` kills it 20 times.
"""

import os
import random
import time
from pathlib import Path

import pytest
import torch

from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.datasets.shapes import generate

from helpers.training import kill, start

pytestmark = pytest.mark.slow

CONFIG = 'configs/demo/mask-rcnn_lesa-r50-narrow_fpn_1xb4-10e_shapes-160.py'
KILLS = int(os.environ.get('LESA_KILLS', 3))
EPOCHS = 6 * KILLS  # more than are done before the last one


@pytest.fixture
def command(tmp_path):
    root = generate(tmp_path / 'shapes', num_train=3, num_val=1)
    return [
        'tools/train.py',
        CONFIG,
        '--cfg-options',
        f'train_dataloader.dataset.data_root={root}/',
        'train_dataloader.dataset.pipeline.2.scale=(64,64)',
        'train_dataloader.batch_size=1',
        'train_dataloader.num_workers=0',
        f'val_dataloader.dataset.data_root={root}/',
        f'val_evaluator.ann_file={root}/annotations/val.json',
        f'train_cfg.max_epochs={EPOCHS}',
        f'train_cfg.val_interval={EPOCHS + 1}',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        'randomness.seed=0',
    ]


def kill_somewhere(process, output, source):
    """SIGKILL a training at a random moment between two of the first times it saves, or while."""
    times, wanted = [time.monotonic()], source.randint(2, 4)
    while len(times) <= wanted:
        assert process.is_alive(), output.read_text(encoding='utf-8')[-3000:]
        if output.read_text(encoding='utf-8').count('Saving checkpoint') >= len(
            times
        ):  # which it does now
            times.append(time.monotonic())
        time.sleep(0.01)
    time.sleep(source.uniform(0, times[-1] - times[-2]))
    kill(process)


def epoch_of(work_dir):
    found = [int(path.stem[6:]) for path in Path(work_dir).glob('epoch_*.pth')]
    return max(found, default=0)


def test_killed_at_random_moments(command, run, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    run(*command, '--work-dir', whole)
    expected = read_checkpoint(whole / f'epoch_{EPOCHS}.pth')

    source, reached, output = random.Random(0), [0], tmp_path / 'killed.txt'
    resume = [*command, '--work-dir', parts, '--resume']
    for _ in range(KILLS):
        kill_somewhere(start(*resume, output=output), output, source)
        resumed = f'resumed epoch: {reached[-1]},' if reached[-1] else 'the training starts anew'
        assert resumed in output.read_text(encoding='utf-8'), output.read_text(encoding='utf-8')[
            -3000:
        ]
        assert epoch_of(parts) >= reached[-1]
        assert len(list(parts.glob('epoch_*.pth'))) <= 2  # the one that is kept, and the next
        reached.append(epoch_of(parts))
    print('epochs reached:', reached)
    assert reached[-1] > 0
    run(*resume)
    assert [path.name for path in parts.glob('*.pth*')] == [f'epoch_{EPOCHS}.pth']
    state = read_checkpoint(parts / f'epoch_{EPOCHS}.pth')['state_dict']
    assert state.keys() == expected['state_dict'].keys()
    assert all(torch.equal(state[key], value) for key, value in expected['state_dict'].items())
