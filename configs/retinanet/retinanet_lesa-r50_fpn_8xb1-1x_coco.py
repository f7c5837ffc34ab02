_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/detection_8xb1-1x.py']

# 1333 x 800 keeping the aspect ratio: position tables for the longer side, lying or standing.
model = dict(backbone=dict(_base_.backbones.lesa_r50, input_size=(1333, 1333)))
optim_wrapper = dict(optimizer=dict(lr=0.005))  # mmdet's 0.01 is for 16 images
