"""The detector in weights/: small, says how it came about, and reaches what it says."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.datasets.shapes import generate

from helpers.paths import ROOT

WEIGHTS = next((ROOT / 'weights').glob('*.pth'))


@pytest.fixture(scope='module')
def checkpoint():
    return read_checkpoint(WEIGHTS)


def test_is_small_and_half_precision(checkpoint):
    assert WEIGHTS.stat().st_size <= 6 * 2**20
    dtypes = {value.dtype for value in checkpoint['state_dict'].values()}
    assert dtypes == {torch.float16, torch.int64}


def test_says_how_it_came_about(checkpoint):
    about = checkpoint['meta']
    assert re.fullmatch(r'[0-9a-f]{7,40}', about['commit'])
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', about['date'])
    assert about['config_file'] == f'{WEIGHTS.stem}.py'
    assert about['command'].startswith('python tools/train.py ')
    assert (ROOT / 'configs' / 'demo' / about['config_file']).is_file()
    text = (ROOT / 'weights' / 'README.md').read_text(encoding='utf-8')
    for figure in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert f'{about["figures"][figure]:.3f}' in text


@pytest.mark.slow
def test_reaches_what_it_says(checkpoint, tmp_path):
    # The held-out images are the same, however many there are to train on.
    root = generate(tmp_path / 'shapes', num_train=1)
    cfg = Config.fromfile(ROOT / 'configs' / 'demo' / checkpoint['meta']['config_file'])
    cfg.test_dataloader.dataset.data_root = f'{root}/'
    cfg.test_evaluator.ann_file = str(root / 'annotations' / 'val.json')
    cfg.merge_from_dict(dict(load_from=str(WEIGHTS), work_dir=str(tmp_path / 'work')))
    metrics = Runner.from_cfg(cfg).test()
    for name, figure in checkpoint['meta']['figures'].items():
        assert metrics[name] == pytest.approx(figure, abs=0.002), name
