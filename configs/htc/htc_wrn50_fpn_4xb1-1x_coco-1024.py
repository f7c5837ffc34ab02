_base_ = './htc_lesa-wrn50_fpn_4xb1-1x_coco-1024.py'

model = dict(backbone=_base_.backbones.wrn50)
