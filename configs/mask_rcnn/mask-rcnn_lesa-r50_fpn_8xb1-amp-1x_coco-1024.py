_base_ = ['./mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024.py', '../_base_/switches/amp_bf16.py']
