_base_ = '../../imagenet/_base_/in1k_4xb32.py'

# R50 at a quarter of its width, on crops of 96 x 96 pixels: the operators see 36 positions.
input_size = (96, 96)
model = dict(
    backbone=dict(base_channels=16, input_size=input_size),
    head=dict(num_classes=12, in_channels=512),
)
# As tools/crop_coco.py measured.
data_preprocessor = dict(num_classes=12, mean=[109.13, 94.984, 81.06], std=[69.813, 67.337, 64.597])

load = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=input_size)]
train_pipeline = [*load, dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
test_pipeline = [*load, dict(type='PackInputs')]

train_crops = dict(type='CustomDataset', data_root='data/crops', data_prefix='train')
val_crops = dict(type='CustomDataset', data_root='data/crops', data_prefix='val')
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(_delete_=True, **train_crops, pipeline=train_pipeline),
)
# What is learnt by heart, and what is recognized: both kinds of crops, without flips.
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='mmdet.ConcatDataset',
        datasets=[dict(**crops, pipeline=test_pipeline) for crops in (train_crops, val_crops)],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='mmdet.MultiDatasetsEvaluator',
    metrics=[dict(type='Accuracy'), dict(type='Accuracy')],
    dataset_prefixes=['train', 'val'],
)
test_evaluator = val_evaluator

max_epochs = 40
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=2, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs - 2,
        begin=2,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=16)
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
