_base_ = ['mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', '../_base_/lesa.py']

default_hooks = _base_.lesa_hooks

# Trained on squares of 1024; tables are stretched for the longer side of a test image.
model = dict(backbone=dict(_base_.backbones.lesa_r50, input_size=(1024, 1024)))
train_dataloader, val_dataloader, test_dataloader = _base_.lesa_dataloaders
