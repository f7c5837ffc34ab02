_base_ = './mask-rcnn_lesa-r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024.py'

model = dict(
    backbone=dict(
        type='LESA_WRN',
        operator=None,
        init_cfg=dict(
            checkpoint='https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth'
        ),
    )
)
