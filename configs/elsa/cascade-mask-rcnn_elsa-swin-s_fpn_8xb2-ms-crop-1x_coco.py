_base_ = './cascade-mask-rcnn_elsa-swin-t_fpn_8xb2-ms-crop-1x_coco.py'

model = dict(backbone=dict(_base_.backbones.elsa_swin_s, drop_path_rate=0.2))
