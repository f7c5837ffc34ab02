_base_ = [
    './htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280.py',
    '../_base_/switches/amp_bf16.py',
]
