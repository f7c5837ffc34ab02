_base_ = ['../_base_/models/mask-rcnn_fpn.py', '../_base_/elsa_8xb2-ms-crop-1x.py']

model = dict(
    backbone=dict(_base_.backbones.elsa_swin_t, _delete_=True, drop_path_rate=0.1),
    neck=_base_.neck,
)
