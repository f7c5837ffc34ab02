_base_ = './resnet50_4xb32_in1k.py'

model = dict(backbone=dict(type='LESA_WRN'))
