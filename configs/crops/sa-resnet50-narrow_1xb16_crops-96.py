_base_ = './_base_/crops-96_1xb16.py'

model = dict(backbone=dict(operator=dict(type='SelfAttention', position='flattened')))
