"""Train a detector: ``tools/train.py CONFIG [arguments of mmdet's tools/train.py]``."""

from lesa_mmdet.launch import run_tool

if __name__ == '__main__':
    run_tool('train')
