_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
]

custom_imports = dict(imports=['lesa_mmdet', 'lesa_mmdet.classifiers'])

# The last stage keeps the map of stage 3: 14 x 14 for images of 224 pixels (paper, section 4.1).
model = dict(
    type='LESA_ImageClassifier',
    backbone=dict(type='LESA_ResNet', strides=(1, 2, 2, 1), input_size=(224, 224), norm_eval=False),
)

# New workers every epoch: a resumed run draws what another would.
train_dataloader = dict(persistent_workers=False)
val_dataloader = dict(persistent_workers=False)
test_dataloader = val_dataloader

# SGD with Nesterov momentum, 5 epochs of linear warm-up and 90 of a cosine, iteration by iteration.
optim_wrapper = dict(optimizer=dict(lr=0.05, nesterov=True, weight_decay=8e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=90, begin=5, end=95, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=95)
auto_scale_lr = dict(enable=False, base_batch_size=128)

default_hooks = dict(
    # Resumed runs draw the random numbers of uninterrupted ones.
    sampler_seed=dict(type='mmdet.EpochSeedHook'),
    # All processes evaluate the statistics of batch norm that the checkpoint has.
    sync_buffers=dict(type='SyncBuffersHook'),
    checkpoint=dict(max_keep_ckpts=3),
)
