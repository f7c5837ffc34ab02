_base_ = './mask-rcnn_lesa-r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024.py'

model = dict(
    backbone=dict(
        operator=None,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    )
)
