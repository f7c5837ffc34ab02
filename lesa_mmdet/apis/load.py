"""A trained model, built and loaded for evaluation."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from ..checkpoints.fit import load_strict
from ..models.mask_memory import guard_masks
from ..utils.configs import load_config
from ..utils.errors import UserValueError
from ..utils.paths import TRAIN_HINT, check_exists


def load_model(
    config: str | Path | Config,
    checkpoint: str | Path,
    device: str = 'cpu',
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build the detector or classifier of a config, with a checkpoint's weights, for evaluation.

    mmdet and mmpretrain do so themselves, each for its own; which one it is follows from the
    config's ``default_scope``, which becomes the current one.

    Args:
        config (str, Path or Config): Config of a detector or, with mmpretrain, a classifier.
        checkpoint (str or Path): File or URL, as training saves it.
        device (str): Device to put the model on.
        cfg_options (dict, optional): Changes to the config.

    Returns:
        nn.Module: The model in evaluation mode; ``model.cfg`` is its config.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ValueError: If the checkpoint is none, or of another backbone or operator, or if it is a
            classifier and mmpretrain is not installed.
    """
    if isinstance(config, Config):
        cfg = deepcopy(config)
        cfg.merge_from_dict(cfg_options or {})
    else:
        cfg = load_config(str(config), cfg_options)
    check_exists(str(checkpoint), 'checkpoint', TRAIN_HINT)
    cfg.model.backbone.init_cfg = None  # the checkpoint has it all
    _check_device(device)
    scope = cfg.get('default_scope', 'mmdet')
    init_default_scope(scope)
    if scope == 'mmpretrain':
        from mmpretrain import get_model as build

        names = '_dataset_meta'
    else:
        build, names = init_detector, 'dataset_meta'
    with warnings.catch_warnings():  # that there is no checkpoint yet
        warnings.simplefilter('ignore')
        model = build(cfg, None, device=device)
    try:
        content = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
        load_strict(model, content)
    except ValueError as error:
        raise UserValueError(
            f'{checkpoint} does not go into the model of {cfg.filename}: {error}'
        ) from error
    _name_classes(model, names, content.get('meta') or {})
    model.cfg = cfg
    guard_masks(model)
    return model


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch without CUDA
        reason = str(error).partition('\n')[0]
        raise UserValueError(f'device {device!r} cannot be used: {reason}') from error


def _name_classes(model: nn.Module, attribute: str, meta: Mapping[str, Any]) -> None:
    """Give a model the names of the classes that its checkpoint has learnt, if that has them."""
    names = {key.lower(): value for key, value in (meta.get('dataset_meta') or {}).items()}
    classes = names.get('classes') or meta.get('CLASSES')  # of mmdet 3, of mmdet 2
    if classes:
        setattr(model, attribute, {**names, **getattr(model, attribute), 'classes': classes})
