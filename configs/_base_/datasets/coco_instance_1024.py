_base_ = './coco_instance.py'

# Square, without keeping the aspect ratio, in training and test (paper, section 4.2).
resize = dict(type='Resize', scale=(1024, 1024), keep_ratio=False)
train_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.train_pipeline]
test_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.test_pipeline]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
