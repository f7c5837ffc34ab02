"""Hooks of mmengine's runner, registered in mmdet."""

from .autocast import BackboneAutocastHook
from .epoch_seed import EpochSeedHook
from .finite_loss import FiniteLossHook
from .term_weights import TermWeightsHook

__all__ = ['BackboneAutocastHook', 'EpochSeedHook', 'FiniteLossHook', 'TermWeightsHook']
