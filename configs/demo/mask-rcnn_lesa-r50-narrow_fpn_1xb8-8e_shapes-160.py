_base_ = './mask-rcnn_lesa-r50-narrow_fpn_1xb4-10e_shapes-160.py'

# Masks are learned from boxes of objects only, and a quarter of 32 are few.
model = dict(train_cfg=dict(rcnn=dict(sampler=dict(pos_fraction=0.3))))
# Images this small are read sooner than a worker starts.
train_dataloader = dict(batch_size=8, num_workers=0)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.002))

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
