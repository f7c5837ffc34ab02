_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py'

# mmdet's own, with the data set and hooks of our configs.
custom_imports = dict(imports=['lesa_mmdet'])
train_dataloader = dict(persistent_workers=False, dataset=dict(type='CheckedCocoDataset'))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader
default_hooks = dict(
    sampler_seed=dict(type='EpochSeedHook'),
    num_classes=dict(type='NumClassCheckHook'),
    finite_loss=dict(type='FiniteLossHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
)
