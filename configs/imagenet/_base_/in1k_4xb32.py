# Nothing of mmpretrain is a base here, so that the configs can be read without it.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['lesa_mmdet', 'lesa_mmdet.models.classifiers'])

# The last stage keeps the map of stage 3: 14 x 14 for images of 224 pixels (paper, section 4.1).
model = dict(
    type='LESA_ImageClassifier',
    backbone=dict(
        type='LESA_ResNet',
        depth=50,
        strides=(1, 2, 2, 1),
        input_size=(224, 224),
        out_indices=(3,),
        norm_eval=False,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
data_preprocessor = dict(
    num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
dataset = dict(type='ImageNet', data_root='data/imagenet')
# New workers every epoch: a resumed run draws what another would.
loader = dict(batch_size=32, num_workers=5, persistent_workers=False)
train_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(split='train', pipeline=train_pipeline, **dataset),
    **loader,
)
val_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='val', pipeline=test_pipeline, **dataset),
    **loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

# SGD with Nesterov momentum, 5 epochs of linear warm-up and 90 of a cosine, iteration by iteration.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=8e-5)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=90, begin=5, end=95, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=95, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=128)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # There is always a complete checkpoint, and one training at a time that writes it.
    checkpoint=dict(type='mmdet.AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    lock=dict(type='mmdet.WorkDirLockHook'),
    # A checkpoint fits the model, the classes and the training, or is refused.
    fit=dict(type='mmdet.FitCheckpointHook'),
    # Resumed runs draw the random numbers of uninterrupted ones.
    sampler_seed=dict(type='mmdet.EpochSeedHook'),
    # All processes evaluate the statistics of batch norm that the checkpoint has.
    sync_buffers=dict(type='SyncBuffersHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
