_base_ = './cascade-mask-rcnn_lesa-r50_fpn_8xb1-1x_coco.py'

model = dict(
    backbone=dict(
        type='LESA_WRN',
        init_cfg=dict(checkpoint='checkpoints/lesa_wrn50_imagenet.pth'),
    )
)
