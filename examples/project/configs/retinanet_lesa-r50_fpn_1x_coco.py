_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['lesa_mmdet'])
model = dict(
    backbone=dict(
        type='LESA_ResNet',
        input_size=(1333, 1333),
        init_cfg=dict(checkpoint='checkpoints/lesa_resnet50_imagenet.pth'),
    )
)
