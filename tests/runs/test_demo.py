"""The demo and its config, cut short."""

import json
import math

import pytest

from lesa_mmdet.datasets.shapes import generate

from helpers.paths import DEMO, ROOT
from helpers.training import printed_metrics

pytestmark = pytest.mark.slow

CONFIG = str(DEMO.relative_to(ROOT))
FEW = ('train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=16')


def test_demo_trains_evaluates_and_draws(run, tmp_path, shapes_of_the_demo):
    work_dir = tmp_path / 'demo'
    few = (*FEW, 'val_dataloader.dataset.indices=16', 'test_dataloader.dataset.indices=16')
    out = run('tools/demo.py', '--work-dir', work_dir, '--cfg-options', *few)
    assert 'Average Precision  (AP) @[ IoU=0.50:0.95' in out
    assert 'bbox AP 0.' in out and 'tools/dist_train.sh configs/mask_rcnn/' in out
    assert f'tools/infer.py IMAGES {work_dir}/mask-rcnn' in out and 'make explore' in out
    for name in ('detections.png', 'curves.png', 'epoch_1.pth'):
        assert (work_dir / name).stat().st_size > 10_000
        assert str(work_dir / name) in out


def test_two_processes_train_and_test_as_one(run, port, tmp_path):
    root = generate(tmp_path / 'shapes', num_train=16, num_val=6)
    data = [f'{split}_dataloader.dataset.data_root={root}/' for split in ('train', 'val', 'test')]
    data += [f'{split}_evaluator.ann_file={root}/annotations/val.json' for split in ('val', 'test')]
    train = ('--cfg-options', *FEW, 'default_hooks.logger.interval=1', *data)
    out = run('tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path / 'two', *train, PORT=port)
    assert 'Distributed training: True' in out and 'GPU number: 2' in out
    log = (
        next((tmp_path / 'two').glob('*/vis_data/scalars.json'))
        .read_text(encoding='utf-8')
        .splitlines()
    )
    losses = [entry['loss'] for entry in map(json.loads, log) if 'loss' in entry]
    # 16 images in batches of 4 in 2 processes.
    assert len(losses) == 2 and all(map(math.isfinite, losses))

    checkpoint = tmp_path / 'two' / 'epoch_1.pth'
    metrics = []
    for tool, *processes in (['tools/test.py'], ['tools/dist_test.sh', 2]):
        command = (tool, CONFIG, checkpoint, *processes, '--work-dir', tmp_path / 'test')
        out = run(*command, '--cfg-options', *data, forked=True, PORT=port)
        metrics.append(printed_metrics(out))
    assert metrics[0] == metrics[1] and 'coco/bbox_mAP' in metrics[0]
