"""Hooks of mmengine's runner, registered in mmdet."""

from .autocast import BackboneAutocastHook
from .epoch_seed import EpochSeedHook
from .finite_loss import FiniteLossHook
from .mask_memory import MaskMemoryHook
from .term_weights import TermWeightsHook

__all__ = [
    'BackboneAutocastHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'MaskMemoryHook',
    'TermWeightsHook',
]
