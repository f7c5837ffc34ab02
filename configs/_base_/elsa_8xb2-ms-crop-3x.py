_base_ = './elsa_8xb2-ms-crop-1x.py'

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
warm_up, steps = _base_.param_scheduler
param_scheduler = [warm_up, dict(steps, end=max_epochs, milestones=[27, 33])]
