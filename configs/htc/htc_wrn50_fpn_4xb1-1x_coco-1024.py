_base_ = './htc_lesa-wrn50_fpn_4xb1-1x_coco-1024.py'

model = dict(
    backbone=dict(
        operator=None,
        init_cfg=dict(
            checkpoint='https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth'
        ),
    )
)
