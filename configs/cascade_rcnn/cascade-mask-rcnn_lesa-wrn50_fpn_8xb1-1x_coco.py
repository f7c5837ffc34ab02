_base_ = './cascade-mask-rcnn_lesa-r50_fpn_8xb1-1x_coco.py'

model = dict(backbone=_base_.backbones.lesa_wrn50)
