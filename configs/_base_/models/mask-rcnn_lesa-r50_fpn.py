_base_ = './mask-rcnn_fpn.py'

model = dict(
    backbone=dict(
        type='LESA_ResNet',
        input_size=(1024, 1024),
        init_cfg=dict(checkpoint='checkpoints/lesa_resnet50_imagenet.pth'),
    )
)
