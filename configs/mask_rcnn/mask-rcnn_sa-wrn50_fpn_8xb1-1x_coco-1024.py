_base_ = './mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'

model = dict(
    backbone=dict(
        type='LESA_WRN',
        operator=dict(type='SelfAttention'),
        init_cfg=dict(checkpoint='checkpoints/sa_wrn50_imagenet.pth'),
    )
)
