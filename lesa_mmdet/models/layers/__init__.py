"""Operators: what replaces a bottleneck's 3x3 convolution or a Swin block's window attention."""

from .augmented import AugmentedAttention
from .base import Attended, Operator, Probe, Site, build_operator
from .elsa import ELSA
from .lesa import LESA, SelfAttention

__all__ = [
    'ELSA',
    'LESA',
    'Attended',
    'AugmentedAttention',
    'Operator',
    'Probe',
    'SelfAttention',
    'Site',
    'build_operator',
]
