_base_ = './mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'

model = dict(
    backbone=dict(
        operator=None,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    )
)
