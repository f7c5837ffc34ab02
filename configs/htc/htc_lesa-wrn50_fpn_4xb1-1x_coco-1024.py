_base_ = './htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1024.py'

model = dict(backbone=dict(dcn=None, stage_with_dcn=(False, False, False, False)))

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
warm_up, steps = _base_.param_scheduler
param_scheduler = [warm_up, dict(steps, end=max_epochs, milestones=[8, 11])]
