_base_ = './mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'

model = dict(backbone=_base_.backbones.lesa_r50_from_resnet)
