_base_ = './mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py'

# Gradient checkpointing: every bottleneck is computed again in the backward pass.
model = dict(backbone=dict(with_cp=True))
