"""Where mmdet keeps its registry and the classes that this package builds on.

No other module imports them from mmdet or mmengine, so that another home of theirs is one edit.
"""

from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.registry import MODELS
from mmengine.model import BaseModule

__all__ = ['MODELS', 'BaseModule', 'BasicBlock', 'Bottleneck', 'ResNet']
