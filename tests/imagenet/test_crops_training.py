"""Short trainings on crops: what the configs are, and that they learn their crops by heart."""

import json
import re

import pytest
from mmengine.config import Config

from lesa_mmdet.datasets.crops import cut_crops, find_train_and_val
from lesa_mmdet.datasets.shapes import generate

OPERATORS = {
    'resnet50': None,
    'sa-resnet50': dict(type='SelfAttention', position='flattened'),
    'lesa-resnet50': dict(type='LESA', position='flattened'),
}
LOADERS = ('train_dataloader.dataset', *(f'val_dataloader.dataset.datasets.{i}' for i in (0, 1)))


def path_of(name):
    return f'configs/crops/{name}-narrow_1xb16_crops-96.py'


@pytest.mark.parametrize('name', OPERATORS)
def test_configs_differ_in_the_operator_alone(name):
    cfg, base = Config.fromfile(path_of(name)), Config.fromfile(path_of('lesa-resnet50'))
    assert cfg.model.backbone.pop('operator') == OPERATORS[name]
    base.model.backbone.pop('operator')
    assert cfg.to_dict() == base.to_dict()


def train(run, root, work_dir, **options):
    """Train the LESA config. Returns the accuracies on train and val crops by epoch."""
    options = [f'{key}={value}' for key, value in options.items()]
    options += [f'{loader}.data_root={root}' for loader in LOADERS]
    command = ('tools/train.py', path_of('lesa-resnet50'), '--work-dir', work_dir)
    out = run(*command, '--cfg-options', *options)
    log = next(work_dir.glob('*/vis_data/scalars.json')).read_text(encoding='utf-8')
    entries = [entry for entry in map(json.loads, log.splitlines()) if 'loss' not in entry]
    assert len(re.findall('Saving checkpoint', out)) == len(entries)
    return [[entry[f'{split}/accuracy/top1'] for entry in entries] for split in ('train', 'val')]


@pytest.mark.slow
def test_lesa_learns_shapes(run, tmp_path):
    root = generate(tmp_path / 'shapes', num_train=40, num_val=10)
    splits = {s: (root / 'annotations' / f'{s}.json', root / s) for s in ('train', 'val')}
    cut_crops(splits, tmp_path / 'crops', classes=6, max_per_class=12)
    options = {'model.head.num_classes': 6, 'train_cfg.max_epochs': 8}
    of_train, of_val = train(run, tmp_path / 'crops', tmp_path / 'run', **options)
    chance = 100 / 6
    assert of_train[0] < of_train[-1] and of_train[-1] > 3 * chance
    assert of_val[-1] > 1.5 * chance  # both splits have the same labels


@pytest.mark.slow
def test_lesa_learns_real_images_by_heart(coco_root, run, tmp_path):
    """Some of them; for all operators, and more crops: docs/crops.md."""
    cut_crops(find_train_and_val(coco_root), tmp_path / 'crops', classes=8, max_per_class=8)
    last = {'train_cfg.val_interval': 28, 'default_hooks.checkpoint.interval': 28}
    options = {'model.head.num_classes': 8, 'train_cfg.max_epochs': 28, **last}
    of_train, _ = train(run, tmp_path / 'crops', tmp_path / 'run', **options)
    assert of_train[-1] > 90
