_base_ = './_base_/elsa-swin_8xb128_in1k.py'

model = dict(
    backbone=dict(
        depths=(2, 2, 18, 2), operator=dict(type='ELSA', group_width=8), drop_path_rate=0.3
    )
)
