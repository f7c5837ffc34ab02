_base_ = './_base_/elsa-swin_8xb128_in1k.py'
