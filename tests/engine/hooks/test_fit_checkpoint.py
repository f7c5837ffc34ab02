"""Which checkpoint a run begins with, whichever runner it has."""

import os

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner, Runner
from torch import nn
from torch.utils.data import Dataset

from lesa_mmdet.checkpoints.files import read_checkpoint


class Nothing(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return [index]


class Counter(BaseModel):
    """Its weight is the number of steps, at a learning rate of 1, and steps those of this run."""

    def __init__(self):
        super().__init__()
        self.steps = 0
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, *_, mode):
        self.steps += 1
        return dict(loss=-self.weight)


def train(kind, work_dir, epochs, **kwargs):
    runner = kind(
        model=Counter(),
        work_dir=str(work_dir),
        default_scope='mmdet',
        train_dataloader=dict(
            dataset=Nothing(),
            sampler=dict(type='DefaultSampler'),
            batch_size=1,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook', interval=1),
            fit=dict(type='FitCheckpointHook'),
            logger=None,
        ),
        experiment_name=f'{kind.__name__}-{work_dir}-{epochs}-{len(os.listdir(work_dir))}',
        log_level='WARNING',
        **kwargs,
    )
    runner.train()
    weight = read_checkpoint(work_dir / f'epoch_{epochs}.pth')['state_dict']['weight'].item()
    return weight, runner.model.steps


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_the_newest_is_resumed_with_and_without_a_note(kind, tmp_path):
    assert train(kind, tmp_path, 1, resume=True) == (2, 2)  # there is none
    assert train(kind, tmp_path, 2, resume=True) == (4, 2)
    (tmp_path / 'last_checkpoint').unlink()
    assert train(kind, tmp_path, 3, resume=True) == (6, 2)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'gone.pth'), encoding='utf-8')
    with pytest.raises(FileNotFoundError):
        train(kind, tmp_path, 4, resume=True)
    assert not (tmp_path / 'epoch_4.pth').exists()
    first = str(tmp_path / 'epoch_1.pth')
    assert train(kind, tmp_path, 4, resume=True, load_from=first) == (8, 6)
