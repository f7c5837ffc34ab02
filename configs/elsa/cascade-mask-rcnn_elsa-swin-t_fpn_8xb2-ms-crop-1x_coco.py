_base_ = [
    '../_base_/models/cascade-mask-rcnn_4conv1fc-giou_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_8xb2-adamw-1x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='ELSA_Swin',
        drop_path_rate=0.0,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/elsa_swin_tiny_imagenet.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
