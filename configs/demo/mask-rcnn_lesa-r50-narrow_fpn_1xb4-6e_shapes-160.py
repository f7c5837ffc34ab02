_base_ = './mask-rcnn_lesa-r50-narrow_fpn_1xb4-10e_shapes-160.py'

# Half of the boxes are of objects: a mask is learned from no others, and masks cost little.
model = dict(train_cfg=dict(rcnn=dict(sampler=dict(num=64, pos_fraction=0.5))))

max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=150),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True),
]
