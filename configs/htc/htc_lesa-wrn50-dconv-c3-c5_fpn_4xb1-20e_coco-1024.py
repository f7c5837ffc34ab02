_base_ = './htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco.py'

image_size = (1024, 1024)
resize = dict(type='Resize', scale=image_size, keep_ratio=False)
train_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.train_pipeline]
test_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.test_pipeline]

model = dict(backbone=dict(input_size=image_size))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
