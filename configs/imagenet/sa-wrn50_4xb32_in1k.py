_base_ = './sa-resnet50_4xb32_in1k.py'

model = dict(backbone=dict(type='LESA_WRN'))
