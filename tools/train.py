"""Train a detector or a classifier: ``tools/train.py CONFIG [further arguments]``.

These are the arguments of mmdet's tools/train.py or, for configs/imagenet, of mmpretrain's.
"""

from lesa_mmdet.engine.launch import run_tool

if __name__ == '__main__':
    run_tool('train')
