_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        type='LESA_ResNet',
        input_size=(1024, 1024),
        init_cfg=dict(checkpoint='checkpoints/lesa_resnet50_imagenet.pth'),
    ),
    # Proposals without an area count, as in the mmdet 2.11 of the paper.
    train_cfg=dict(rpn_proposal=dict(min_bbox_size=-1)),
    test_cfg=dict(rpn=dict(min_bbox_size=-1)),
)
