_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/lesa.py']

default_hooks = _base_.lesa_hooks

# Images of 480 to 1333 pixels a side, lying or standing: position tables for the longest.
model = dict(backbone=dict(_base_.backbones.lesa_r50, input_size=(1333, 1333)))
train_dataloader, val_dataloader, test_dataloader = _base_.lesa_dataloaders
