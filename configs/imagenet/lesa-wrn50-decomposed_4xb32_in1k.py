_base_ = './lesa-wrn50_4xb32_in1k.py'

# For detectors: their position tables are resized from these.
model = dict(backbone=dict(operator=dict(position='decomposed')))
