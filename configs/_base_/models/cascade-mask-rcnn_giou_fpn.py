_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

# Box heads as those of mmdet's Cascade Mask R-CNN with ConvNeXt; the rest as in mmdet 2.11, see
# docs/configs.md.
model = dict(
    roi_head=dict(
        type='LESA_CascadeRoIHead',
        bbox_head=[
            dict(
                head,
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                conv_out_channels=256,
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for head in _base_.model.roi_head.bbox_head
        ],
    ),
    train_cfg=dict(rpn_proposal=dict(min_bbox_size=-1)),
    test_cfg=dict(rpn=dict(min_bbox_size=-1)),
)
