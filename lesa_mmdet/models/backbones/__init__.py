"""Backbones: ResNets and Swin Transformers with an operator in some of their stages."""

from .resnet import LESA_WRN, LESA_ResNet
from .swin import ELSA_Swin

__all__ = ['ELSA_Swin', 'LESA_ResNet', 'LESA_WRN']
