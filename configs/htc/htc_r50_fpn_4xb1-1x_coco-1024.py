_base_ = './htc_lesa-r50_fpn_4xb1-1x_coco-1024.py'

model = dict(backbone=_base_.backbones.r50)
