"""Operators: what replaces a bottleneck's 3x3 convolution or a Swin block's window attention."""

from .augmented import AugmentedAttention
from .base import Operator, build_operator
from .elsa import ELSA
from .lesa import LESA, SelfAttention

__all__ = ['ELSA', 'LESA', 'AugmentedAttention', 'Operator', 'SelfAttention', 'build_operator']
