"""Hooks of mmengine's runner, registered in mmdet."""

from .atomic_checkpoint import AtomicCheckpointHook
from .autocast import BackboneAutocastHook
from .class_numbers import ClassNumbersHook
from .epoch_seed import EpochSeedHook
from .finite_loss import FiniteLossHook
from .fit_checkpoint import FitCheckpointHook
from .mask_memory import MaskMemoryHook
from .term_weights import TermWeightsHook
from .work_dir_lock import WorkDirLockHook

__all__ = [
    'AtomicCheckpointHook',
    'BackboneAutocastHook',
    'ClassNumbersHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'FitCheckpointHook',
    'MaskMemoryHook',
    'TermWeightsHook',
    'WorkDirLockHook',
]
