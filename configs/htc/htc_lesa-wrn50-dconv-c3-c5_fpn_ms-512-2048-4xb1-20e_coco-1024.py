_base_ = './htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1024.py'

train_pipeline = [
    _base_.multi_scale if step['type'] == 'Resize' else step for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
