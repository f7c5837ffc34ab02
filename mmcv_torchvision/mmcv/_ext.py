from mmcv_torchvision import *  # noqa: F403 (mmcv's compiled _ext goes first where it is there)
