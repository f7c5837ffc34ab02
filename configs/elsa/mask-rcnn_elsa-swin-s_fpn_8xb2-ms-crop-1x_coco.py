_base_ = './mask-rcnn_elsa-swin-t_fpn_8xb2-ms-crop-1x_coco.py'

model = dict(
    backbone=dict(
        depths=(2, 2, 18, 2),
        operator=dict(type='ELSA', group_width=8),
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='checkpoints/elsa_swin_small_imagenet.pth'),
    )
)
