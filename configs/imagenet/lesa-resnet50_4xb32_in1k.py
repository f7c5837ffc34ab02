_base_ = './_base_/in1k_4xb32.py'

model = dict(backbone=dict(operator=dict(type='LESA', position='flattened')))
