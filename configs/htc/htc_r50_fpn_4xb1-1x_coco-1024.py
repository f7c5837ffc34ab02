_base_ = './htc_lesa-r50_fpn_4xb1-1x_coco-1024.py'

model = dict(
    backbone=dict(
        operator=None,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    )
)
