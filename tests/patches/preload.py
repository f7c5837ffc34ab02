"""What most programs of the tests begin with, done in the process that they are forked from."""

import gc
import sys

import matplotlib.figure  # noqa: F401
import mmdet.apis  # noqa: F401
import pycocotools.coco  # noqa: F401
import torch._dynamo  # noqa: F401 (by every optimizer)

import lesa_mmdet  # noqa: F401

import patches.quick_mmengine  # noqa: F401
from helpers.configs import load
from helpers.paths import DEMO

PATH = sys.path.copy()  # which a test's process may have changed for itself
load(DEMO.stem)
gc.freeze()  # what the collector touches, a forked process has to copy
