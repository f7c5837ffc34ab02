_base_ = [
    '../_base_/models/mask-rcnn_lesa-r50_fpn.py',
    '../_base_/datasets/coco_instance_1024.py',
    '../_base_/schedules/schedule_8xb1-1x.py',
    '../_base_/default_runtime.py',
]
