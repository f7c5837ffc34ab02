_base_ = './mask-rcnn_lesa-r50-narrow_fpn_1xb4-10e_shapes-160.py'

# The demo's detector on 4,000 images instead of 600, longer; held out are the demo's 150. To write
# the images: generate('data/shapes_4000', num_train=4000) of lesa_mmdet.datasets.shapes.
data_root = 'data/shapes_4000/'
# Half of the boxes are of objects: a mask is learned from no others, and masks cost little.
model = dict(train_cfg=dict(rcnn=dict(sampler=dict(num=64, pos_fraction=0.5))))
# Shapes lie at any angle, so that all mirror images are as likely.
flip = dict(
    type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
)
train_pipeline = [flip if step['type'] == 'RandomFlip' else step for step in _base_.train_pipeline]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

# At a constant rate, then down to zero: where the fall begins, the epochs before it do not know.
max_epochs = 9
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=150),
    dict(
        type='LinearLR',
        start_factor=1,
        end_factor=0.001,
        begin=max_epochs - 2,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
