_base_ = [
    './datasets/coco_detection.py',
    './schedules/schedule_8xb1-1x.py',
    './default_runtime.py',
]
