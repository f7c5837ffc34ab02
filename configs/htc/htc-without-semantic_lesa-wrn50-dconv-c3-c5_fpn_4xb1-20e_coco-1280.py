_base_ = './htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280.py'

# The same without the semantic branch, and so without the maps of COCO-stuff.
model = dict(roi_head=dict(semantic_roi_extractor=None, semantic_head=None))
train_pipeline = [
    dict(step, with_seg=False) if step['type'] == 'LoadAnnotations' else step
    for step in _base_.train_pipeline
]
train_dataloader = dict(
    dataset=dict(data_prefix=dict(_delete_=True, img='train2017/'), pipeline=train_pipeline)
)
