_base_ = './mask-rcnn_lesa-r50-narrow_fpn_1xb4-10e_shapes-160.py'

# Half of the boxes are of objects: a mask is learned from no others.
model = dict(train_cfg=dict(rcnn=dict(sampler=dict(pos_fraction=0.5))))
# Shared by two processes, 4 images are too few for batch norm in each.
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.002))

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
