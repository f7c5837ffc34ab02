"""Evaluate a detector: ``tools/test.py CONFIG CHECKPOINT [arguments of mmdet's tools/test.py]``."""

from lesa_mmdet.launch import run_tool

if __name__ == '__main__':
    run_tool('test')
