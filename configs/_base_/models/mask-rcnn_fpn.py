_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

# Proposals without an area count, as in the mmdet 2.11 of the papers.
model = dict(
    train_cfg=dict(rpn_proposal=dict(min_bbox_size=-1)),
    test_cfg=dict(rpn=dict(min_bbox_size=-1)),
)
