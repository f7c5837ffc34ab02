_base_ = [
    './datasets/coco_instance_ms-crop.py',
    './schedules/schedule_8xb2-adamw-1x.py',
    './default_runtime.py',
]

neck = dict(in_channels=[96, 192, 384, 768])  # of Swin-T and Swin-S
