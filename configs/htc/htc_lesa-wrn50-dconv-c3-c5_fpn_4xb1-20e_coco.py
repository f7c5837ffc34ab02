_base_ = 'mmdet::htc/htc_r50_fpn_20e_coco.py'

custom_imports = dict(imports=['lesa_mmdet'])
default_hooks = dict(sampler_seed=dict(type='EpochSeedHook'))

# 1333 x 800 keeping the aspect ratio: position tables for the longer side, lying or standing.
model = dict(
    backbone=dict(
        type='LESA_WRN',
        input_size=(1333, 1333),
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
        init_cfg=dict(checkpoint='checkpoints/lesa_wrn50_imagenet.pth'),
    )
)
train_dataloader = dict(
    batch_size=1, persistent_workers=False, dataset=dict(type='CheckedCocoDataset')
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=4)
