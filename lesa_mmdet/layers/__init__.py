"""Operators: what replaces a bottleneck's 3x3 convolution or a Swin block's window attention."""

from .augmented import AugmentedAttention
from .elsa import ELSA
from .lesa import LESA, SelfAttention
from .operator import Operator, build_operator

__all__ = ['ELSA', 'LESA', 'AugmentedAttention', 'Operator', 'SelfAttention', 'build_operator']
