_base_ = 'mmdet::_base_/datasets/coco_detection.py'

# One image a GPU, as released. New workers every epoch: a resumed run draws what another would.
train_dataloader = dict(
    batch_size=1, persistent_workers=False, dataset=dict(type='CheckedCocoDataset')
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader
