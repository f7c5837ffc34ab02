_base_ = './mask-rcnn_lesa-wrn50_fpn_8xb1-1x_coco-1024.py'

model = dict(backbone=_base_.backbones.lesa_wrn50_from_resnet)
