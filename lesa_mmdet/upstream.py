"""What we take of mmdet, mmengine and mmcv: where their registries and our base classes live.

No other module imports these from mmdet or mmengine, so that another home of theirs is one edit.
The package imports this module first: if a stack is missing, one sentence says so.
"""

from functools import partial

try:
    import mmcv.ops  # noqa: F401
    import mmdet  # noqa: F401
    import mmengine  # noqa: F401
except ModuleNotFoundError as error:
    if error.name.partition('.')[0] not in ('mmcv', 'mmdet', 'mmengine'):
        raise
    raise ModuleNotFoundError(
        f'lesa_mmdet needs mmcv with operators, mmengine and mmdet ({error}): in its checkout, '
        "pip install -r requirements/openmmlab.txt ./mmcv_torchvision installs OpenMMLab's, and "
        "pip install --no-cache-dir -r requirements/onedl.txt ./mmcv_torchvision OneDL's",
        name=error.name,
    ) from error

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
from pycocotools import coco

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


# Annotations are UTF-8; pycocotools opens them in the locale's encoding, for mmdet's metrics, too.
coco.open = partial(open, encoding='utf-8')


def register_backbone(backbone: type) -> type:
    """Register a backbone in mmdet, and in mmengine's root, where mmpretrain finds it, too."""
    for registry in (MODELS, ROOT_MODELS):
        registry.register_module(module=backbone)
    return backbone
