_base_ = 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'

custom_imports = dict(imports=['lesa_mmdet'])
# mmsegmentation's ResNet runs at stride 8 behind a deep stem; LESA has the usual one.
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='LESA_ResNet',
        depth=50,
        input_size=(512, 512),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/lesa_resnet50_imagenet.pth'),
    ),
)
