_base_ = './htc_lesa-wrn50-dconv-c3-c5_fpn_ms-512-2048-4xb1-20e_coco-1280.py'

# Gradient checkpointing: every bottleneck is computed again in the backward pass.
model = dict(backbone=dict(with_cp=True))
