"""Where mmdet keeps its registry and the classes that this package builds on.

No other module imports them from mmdet or mmengine, so that another home of theirs is one edit.
"""

from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.hooks import DistSamplerSeedHook
from mmengine.model import BaseModule

__all__ = [
    'DATASETS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'BaseModule',
    'BasicBlock',
    'Bottleneck',
    'CocoDataset',
    'CocoMetric',
    'DistSamplerSeedHook',
    'ResNet',
]
