_base_ = './mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'

model = dict(
    backbone=dict(
        type='LESA_WRN',
        operator=None,
        init_cfg=dict(
            checkpoint='https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth'
        ),
    )
)
