_base_ = [
    'mmdet::htc/htc_r50_fpn_20e_coco.py',
    '../_base_/lesa.py',
    '../_base_/datasets/multi_scale_512-2048.py',
]

default_hooks = _base_.lesa_hooks

# 1333 x 800 keeping the aspect ratio: position tables for the longer side, lying or standing.
model = dict(
    backbone=dict(
        _base_.backbones.lesa_wrn50,
        input_size=(1333, 1333),
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
    # What mmdet 3 does otherwise than the mmdet 2.11 of the paper: see docs/configs.md.
    roi_head=dict(type='LESA_HTCRoIHead', semantic_head=dict(loss_seg=dict(avg_non_ignore=True))),
    train_cfg=dict(rpn_proposal=dict(min_bbox_size=-1)),
    test_cfg=dict(rpn=dict(min_bbox_size=-1)),
)
train_dataloader, val_dataloader, test_dataloader = _base_.lesa_dataloaders
train_dataloader = dict(train_dataloader, batch_size=1)

optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=4)
