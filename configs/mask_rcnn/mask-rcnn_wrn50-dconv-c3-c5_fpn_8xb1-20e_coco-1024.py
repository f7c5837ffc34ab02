_base_ = './mask-rcnn_lesa-r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024.py'

model = dict(backbone=_base_.backbones.wrn50)
