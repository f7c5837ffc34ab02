_base_ = './htc_lesa-wrn50_fpn_4xb1-1x_coco-1024.py'

model = dict(
    backbone=dict(
        type='LESA_ResNet',
        init_cfg=dict(checkpoint='checkpoints/lesa_resnet50_imagenet.pth'),
    )
)
