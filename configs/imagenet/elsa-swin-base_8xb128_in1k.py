_base_ = './elsa-swin-small_8xb128_in1k.py'

model = dict(
    backbone=dict(embed_dims=128, num_heads=(4, 8, 16, 32), drop_path_rate=0.5),
    head=dict(in_channels=1024),
)

# The recipe evaluates averaged weights.
custom_hooks = [dict(type='EMAHook', momentum=8e-5, priority='ABOVE_NORMAL')]
