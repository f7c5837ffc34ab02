"""Training and evaluation on real COCO images, as a user does them."""

import json
import math
from collections import Counter

import numpy as np
import pytest

from lesa_mmdet.checkpoints.files import read_checkpoint

from helpers.paths import ROOT

pytestmark = pytest.mark.slow

CONFIG = 'configs/mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'
SIZE = (192, 192)


@pytest.fixture
def config(coco_root, tmp_path):
    """LESA Mask R-CNN at an eighth of the width, on four real images, for training and test."""
    annotations = json.loads(
        (coco_root / 'annotations' / 'instances_val2017_mini.json').read_text(encoding='utf-8')
    )
    large = [a for a in annotations['annotations'] if a['area'] > 96**2]
    count = Counter(annotation['image_id'] for annotation in large)
    image_ids = [image_id for image_id, objects in count.items() if objects == 1][:4]
    annotations['annotations'] = large
    for key, of in (('images', 'id'), ('annotations', 'image_id')):
        annotations[key] = [entry for entry in annotations[key] if entry[of] in image_ids]
    ann_file = tmp_path / 'four_images.json'
    ann_file.write_text(json.dumps(annotations), encoding='utf-8')
    text = f"""
_base_ = '{ROOT / CONFIG}'

model = dict(
    backbone=dict(
        base_channels=16, input_size={SIZE}, frozen_stages=-1, norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=32, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=64),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(num_convs=1, in_channels=32, conv_out_channels=32),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
)
resize = dict(type='Resize', scale={SIZE}, keep_ratio=False)
train_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.train_pipeline]
test_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.test_pipeline]
dataset = dict(data_root='', ann_file='{ann_file}', data_prefix=dict(img='{coco_root}/val2017/'))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='RepeatDataset',
        times=15,
        _delete_=True,
        dataset=dict(type='CocoDataset', pipeline=train_pipeline, **dataset),
    ),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline, **dataset)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{ann_file}')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=4, val_interval=4)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.002), clip_grad=dict(max_norm=10)
)
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=10)]
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
"""
    path = tmp_path / 'four_images.py'
    path.write_text(text, encoding='utf-8')
    return path


def read_json_lines(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def metrics(entry):
    return {key: value for key, value in entry.items() if 'mAP' in key}


def test_train_then_test(config, run, tmp_path):
    run('tools/train.py', config, '--work-dir', tmp_path / 'train')
    logged = read_json_lines(next((tmp_path / 'train').glob('*/vis_data/scalars.json')))
    losses = [entry['loss'] for entry in logged if 'loss' in entry]
    assert len(losses) == 60 and all(map(math.isfinite, losses))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    trained = metrics(logged[-1])
    assert trained['coco/bbox_mAP'] > 0

    checkpoint = tmp_path / 'train' / 'epoch_4.pth'
    state = read_checkpoint(checkpoint)['state_dict']
    assert all(value.isfinite().all() for value in state.values())
    run('tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'test')
    tested = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text(encoding='utf-8'))
    assert metrics(tested) == trained
