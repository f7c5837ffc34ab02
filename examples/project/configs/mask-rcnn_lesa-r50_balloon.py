_base_ = __import__('lesa_mmdet').config_path(
    'mask_rcnn/mask-rcnn_lesa-r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024.py'
)

data_root = 'data/balloon/'
dataset = dict(data_root=data_root, metainfo=dict(classes=('balloon',)))
model = dict(roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)))
train_dataloader = dict(
    dataset=dict(ann_file='train.json', data_prefix=dict(img='train/'), **dataset)
)
val_dataloader = dict(dataset=dict(ann_file='val.json', data_prefix=dict(img='val/'), **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'val.json')
test_evaluator = val_evaluator
