"""LESA backbones for mmdetection. Importing the package registers everything in mmdet."""

from . import upstream  # noqa: F401, I001 (first: it says what is missing)
from .models.backbones import LESA_WRN, ELSA_Swin, LESA_ResNet
from .checkpoints import schemes
from .datasets import CheckedCocoDataset
from .engine.hooks import (
    AtomicCheckpointHook,
    BackboneAutocastHook,
    ClassNumbersHook,
    EpochSeedHook,
    FiniteLossHook,
    FitCheckpointHook,
    MaskMemoryHook,
    TermWeightsHook,
    WorkDirLockHook,
)
from .evaluation.submission import CocoSubmission
from .models.layers import ELSA, LESA, AugmentedAttention, SelfAttention
from .models.roi_heads import LESA_CascadeRoIHead, LESA_HTCRoIHead
from .utils.configs import config_path
from .version import __version__

__all__ = [
    'ELSA',
    'LESA',
    'AtomicCheckpointHook',
    'AugmentedAttention',
    'BackboneAutocastHook',
    'CheckedCocoDataset',
    'ClassNumbersHook',
    'CocoSubmission',
    'ELSA_Swin',
    'EpochSeedHook',
    'FiniteLossHook',
    'FitCheckpointHook',
    'LESA_CascadeRoIHead',
    'LESA_HTCRoIHead',
    'LESA_ResNet',
    'LESA_WRN',
    'MaskMemoryHook',
    'SelfAttention',
    'TermWeightsHook',
    'WorkDirLockHook',
    '__version__',
    'config_path',
]

schemes.register()
