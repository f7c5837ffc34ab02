"""What a training draws does not depend on interruptions."""

import copy
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from lesa_mmdet.checkpoints.files import read_checkpoint

EPOCHS = 3


class Draws(Dataset):
    """Every item is its index and what the three sources of random numbers give."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return [index, random.random(), np.random.rand(), torch.rand(()).item()]


class Recorder(BaseModel):
    """Notes what it sees, and draws itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, *inputs, mode):
        if mode == 'predict':
            return random.random(), torch.rand(())
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
        self.seen.append(([torch.as_tensor(column).tolist() for column in inputs], drawn))
        return {'loss': self.weight**2}


def train(
    work_dir, *, seed=None, num_workers=0, resume=False, epochs=EPOCHS, options=None, **randomness
):
    model, options = Recorder(), options or {}
    wrapper = {key: options[key] for key in ('accumulative_counts',) if key in options}
    Runner(
        model=model,
        work_dir=str(work_dir),
        default_scope='mmdet',
        train_dataloader=dict(
            dataset=Draws(),
            sampler=dict(type=options.get('sampler', 'DefaultSampler')),
            batch_size=2,
            num_workers=num_workers,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=options.get('train_cfg') or dict(by_epoch=True, max_epochs=epochs),
        **options.get('validation', {}),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **wrapper),
        cfg=Config(dict(optim_wrapper=wrapper)),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=1, by_epoch='max_iters' not in str(options)
            ),
            sampler_seed=dict(type='EpochSeedHook'),
            logger=None,
        ),
        randomness=dict(seed=seed, **randomness),
        resume=resume,
        experiment_name=f'{work_dir.name}-{np.random.SeedSequence().entropy}',
        log_level='WARNING',
    ).train()
    return model.seen


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('randomness', [{}, {'diff_rank_seed': True}])
def test_resumed_run_draws_what_an_uninterrupted_one_draws(num_workers, randomness, tmp_path):
    options = dict(num_workers=num_workers, **randomness)
    whole = train(tmp_path / 'whole', **options)
    seed = read_checkpoint(tmp_path / 'whole' / 'epoch_1.pth')['meta']['seed']
    first = train(tmp_path / 'parts', seed=seed, epochs=1, **options)
    rest = train(tmp_path / 'parts', resume=True, **options)  # its seed comes from the checkpoint
    assert len(whole) == EPOCHS * 3
    assert first + rest == whole


class Nothing(BaseMetric):
    """A metric of nothing."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(nothing=np.random.rand())


VALIDATION = dict(
    val_dataloader=dict(
        dataset=Draws(),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    ),
    val_cfg=dict(),
    val_evaluator=Evaluator(Nothing()),
)


@pytest.mark.parametrize(
    'sampler, num_workers, randomness',
    [
        ('InfiniteSampler', 0, {}),
        ('InfiniteSampler', 2, {'diff_rank_seed': True}),
        ('DefaultSampler', 0, {'diff_rank_seed': True}),
        ('DefaultSampler', 2, {}),
    ],
)
def test_resumed_iterations_draw_what_uninterrupted_ones_draw(
    sampler, num_workers, randomness, tmp_path, monkeypatch
):
    """Killed after any iteration, and with a validation in between."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda _: None)

    def run(name, iterations, **kwargs):
        options = dict(
            sampler=sampler,
            train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=2),
            validation=copy.deepcopy(VALIDATION),
        )
        return train(
            tmp_path / name, num_workers=num_workers, options=options, **kwargs, **randomness
        )

    whole = run('whole', 7)
    seed = read_checkpoint(tmp_path / 'whole' / 'iter_1.pth')['meta']['seed']
    parts = run('parts', 1, seed=seed)
    for iterations in (4, 7):  # the seed comes from the checkpoint
        parts += run('parts', iterations, resume=True)
    assert len(whole) == 7 and parts == whole
    drawn = [value for _, values in whole for value in values]
    assert len(set(drawn)) == len(drawn)


def test_a_checkpoint_within_an_epoch_is_said_not_to_continue_exactly(tmp_path, told):
    train(tmp_path / 'run', epochs=1)
    path = tmp_path / 'run' / 'epoch_1.pth'
    checkpoint = read_checkpoint(path)
    train(tmp_path / 'run', epochs=2, resume=True)
    assert not any('not continue exactly' in line for line in told)
    checkpoint['meta'].update(epoch=0, iter=2)
    torch.save(checkpoint, path)
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(path), encoding='utf-8')
    train(tmp_path / 'run', epochs=2, resume=True)
    (line,) = (line for line in told if 'not continue exactly' in line)
    assert 'is of iteration 2, and an epoch has 3' in line and 'start of epoch 1' in line


def test_gradients_that_no_checkpoint_has_are_said(tmp_path, told):
    options = dict(accumulative_counts=2)
    for epochs, is_said in ((1, False), (2, True), (3, False)):  # after 0, 3 and 6 iterations
        told.clear()
        train(tmp_path / 'run', epochs=epochs, resume=True, options=options)
        lines = [line for line in told if 'gradients are summed over 2' in line]
        assert bool(lines) == is_said, epochs
        assert all('of the last 1 are not in it' in line for line in lines)


def test_epochs_and_seeds_draw_differently(tmp_path):
    whole = train(tmp_path / 'a', seed=0, num_workers=1)
    other = train(tmp_path / 'b', seed=1, num_workers=1)
    drawn = [value for inputs, _ in whole + other for column in inputs[1:] for value in column]
    drawn += [value for _, values in whole + other for value in values]
    assert len(set(drawn)) == len(drawn)
    orders = [sum((inputs[0] for inputs, _ in whole[i : i + 3]), []) for i in (0, 3, 6)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(map(tuple, orders))) > 1
