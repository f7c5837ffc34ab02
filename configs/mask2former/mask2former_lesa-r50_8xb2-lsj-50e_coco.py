_base_ = ['mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', '../_base_/lesa.py']

default_hooks = _base_.lesa_hooks

# Trained on squares of 1024; tables are stretched for the longer side of a test image.
model = dict(
    backbone=dict(
        type='LESA_ResNet',
        input_size=(1024, 1024),
        init_cfg=dict(checkpoint='checkpoints/lesa_resnet50_imagenet.pth'),
    )
)
train_dataloader = dict(persistent_workers=False, dataset=dict(type='CheckedCocoDataset'))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader
