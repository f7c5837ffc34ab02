"""Operators: what takes the place of a bottleneck's 3x3 convolution."""

from .augmented import AugmentedAttention
from .lesa import LESA, SelfAttention
from .operator import Operator, build_operator

__all__ = ['LESA', 'AugmentedAttention', 'Operator', 'SelfAttention', 'build_operator']
