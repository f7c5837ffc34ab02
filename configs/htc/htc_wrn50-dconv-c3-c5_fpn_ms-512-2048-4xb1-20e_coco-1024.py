_base_ = './htc_lesa-wrn50-dconv-c3-c5_fpn_ms-512-2048-4xb1-20e_coco-1024.py'

model = dict(backbone=_base_.backbones.wrn50)
