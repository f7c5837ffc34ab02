"""Where mmdet keeps its registry and the classes that this package builds on.

No other module imports them from mmdet or mmengine, so that another home of theirs is one edit.
"""

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO as CocoApi
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.engine.hooks import CheckInvalidLossHook
from mmdet.evaluation import CocoMetric
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.models.backbones.swin import SwinTransformer, WindowMSA
from mmdet.models.roi_heads import CascadeRoIHead, HybridTaskCascadeRoIHead
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.hooks import CheckpointHook, DistSamplerSeedHook, Hook
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import MODELS as ROOT_MODELS

__all__ = [
    'DATASETS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'BaseModule',
    'BasicBlock',
    'Bottleneck',
    'CheckInvalidLossHook',
    'CocoApi',
    'CascadeRoIHead',
    'CheckpointHook',
    'CocoDataset',
    'CocoMetric',
    'DistSamplerSeedHook',
    'Hook',
    'LoadAnnotations',
    'HybridTaskCascadeRoIHead',
    'ModuleList',
    'ResNet',
    'SwinTransformer',
    'WindowMSA',
    'register_backbone',
]


def register_backbone(backbone: type) -> type:
    """Register a backbone in mmdet, and in mmengine's root, where mmpretrain finds it, too."""
    for registry in (MODELS, ROOT_MODELS):
        registry.register_module(module=backbone)
    return backbone
