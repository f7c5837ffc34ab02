"""LESA backbones for mmdetection. Importing the package registers everything in mmdet."""

from . import serialization
from .backbones import LESA_WRN, LESA_ResNet
from .layers import LESA, SelfAttention
from .version import __version__

__all__ = ['LESA', 'LESA_ResNet', 'LESA_WRN', 'SelfAttention', '__version__']

serialization.register()
