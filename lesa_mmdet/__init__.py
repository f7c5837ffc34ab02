"""LESA backbones for mmdetection. Importing the package registers everything in mmdet."""

from . import stack  # noqa: F401 (first: says what is missing)
from .backbones import LESA_WRN, ELSA_Swin, LESA_ResNet
from .checkpoints import schemes
from .configs import config_path
from .datasets import CheckedCocoDataset
from .engine.hooks import (
    BackboneAutocastHook,
    EpochSeedHook,
    FiniteLossHook,
    FitCheckpointHook,
    MaskMemoryHook,
    TermWeightsHook,
    WholeCheckpointHook,
    WorkDirLockHook,
)
from .layers import ELSA, LESA, AugmentedAttention, SelfAttention
from .roi_heads import LESA_CascadeRoIHead, LESA_HTCRoIHead
from .submission import CocoSubmission
from .version import __version__

__all__ = [
    'ELSA',
    'LESA',
    'AugmentedAttention',
    'BackboneAutocastHook',
    'CheckedCocoDataset',
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
    'WholeCheckpointHook',
    'WorkDirLockHook',
    '__version__',
    'config_path',
]

schemes.register()
