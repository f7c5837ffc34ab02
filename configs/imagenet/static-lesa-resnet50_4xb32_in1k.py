_base_ = './lesa-resnet50_4xb32_in1k.py'

# Both terms are added unweighted.
model = dict(backbone=dict(operator=dict(fusion='static')))
