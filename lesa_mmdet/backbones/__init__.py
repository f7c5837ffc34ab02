"""Backbones: ResNets with an operator in some of their stages."""

from .resnet import LESA_WRN, LESA_ResNet

__all__ = ['LESA_ResNet', 'LESA_WRN']
