# What every config of this package adds to mmdet's.
custom_imports = dict(imports=['lesa_mmdet'])

# default_hooks = _base_.lesa_hooks
lesa_hooks = dict(
    # There is always a complete checkpoint, and one training at a time that writes it.
    checkpoint=dict(type='AtomicCheckpointHook'),
    lock=dict(type='WorkDirLockHook'),
    # A checkpoint fits the model, the classes and the training, or is refused.
    fit=dict(type='FitCheckpointHook'),
    # Resumed runs draw the random numbers of uninterrupted ones.
    sampler_seed=dict(type='EpochSeedHook'),
    # Mistakes that would show in the results alone, or not at all.
    num_classes=dict(type='ClassNumbersHook'),
    finite_loss=dict(type='FiniteLossHook'),
    mask_memory=dict(type='MaskMemoryHook'),
    # All processes evaluate the statistics of batch norm that the checkpoint has, where it is
    # trained (with norm_eval they are constants).
    sync_buffers=dict(type='SyncBuffersHook'),
)

# train_dataloader, val_dataloader, test_dataloader = _base_.lesa_dataloaders
# New workers every epoch: a resumed run draws what another would.
lesa_dataloaders = [
    dict(persistent_workers=False, dataset=dict(type='CheckedCocoDataset')),
    dict(dataset=dict(type='CheckedCocoDataset')),
    dict(dataset=dict(type='CheckedCocoDataset')),
]

# The papers' backbones with their ImageNet checkpoints: model = dict(backbone=_base_.backbones.r50)
backbones = dict(
    r50=dict(
        type='LESA_ResNet',
        operator=None,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    sa_r50=dict(
        type='LESA_ResNet',
        operator=dict(type='SelfAttention'),
        init_cfg=dict(checkpoint='checkpoints/sa_resnet50_imagenet.pth'),
    ),
    lesa_r50=dict(
        type='LESA_ResNet', init_cfg=dict(checkpoint='checkpoints/lesa_resnet50_imagenet.pth')
    ),
    wrn50=dict(
        type='LESA_WRN',
        operator=None,
        init_cfg=dict(
            checkpoint='https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth'
        ),
    ),
    sa_wrn50=dict(
        type='LESA_WRN',
        operator=dict(type='SelfAttention'),
        init_cfg=dict(checkpoint='checkpoints/sa_wrn50_imagenet.pth'),
    ),
    lesa_wrn50=dict(
        type='LESA_WRN', init_cfg=dict(checkpoint='checkpoints/lesa_wrn50_imagenet.pth')
    ),
    # LESA made of torchvision's convolutions.
    lesa_r50_from_resnet=dict(
        type='LESA_ResNet',
        pretrained_conv=True,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    lesa_wrn50_from_resnet=dict(
        type='LESA_WRN',
        pretrained_conv=True,
        init_cfg=dict(
            checkpoint='https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth'
        ),
    ),
    elsa_swin_t=dict(
        type='ELSA_Swin',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/elsa_swin_tiny_imagenet.pth'),
    ),
    elsa_swin_s=dict(
        type='ELSA_Swin',
        depths=(2, 2, 18, 2),
        operator=dict(type='ELSA', group_width=8),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/elsa_swin_small_imagenet.pth'),
    ),
)
