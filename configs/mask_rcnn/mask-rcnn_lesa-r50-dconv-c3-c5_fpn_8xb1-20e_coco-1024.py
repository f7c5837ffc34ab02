_base_ = [
    '../_base_/models/mask-rcnn_lesa-r50_fpn.py',
    '../_base_/datasets/coco_instance_1024.py',
    '../_base_/schedules/schedule_8xb1-20e.py',
    '../_base_/default_runtime.py',
]

# Deformable: every plain 3x3 convolution of stages 2 to 4, and LESA's local term.
model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
)
