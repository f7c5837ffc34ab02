"""Whether a checkpoint fits a whole model, so that nothing stays initialized without a word."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..utils.errors import UserValueError
from .adapt import describe

_BACKBONE = 'backbone.'  # which looks at its part itself, see adapt_state_dict


def load_strict(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Load a checkpoint into a model, all of it.

    Args:
        model (nn.Module): Detector or classifier.
        checkpoint (Mapping[str, Any]): What was read.

    Raises:
        ValueError: If it does not fit, naming what is missing, unexpected or of another shape.
    """
    expectation = require_fit(model, checkpoint)
    _load_checkpoint_to_model(unwrap(model), checkpoint)
    expectation.remove()


def require_fit(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    *,
    fine_tune: bool = False,
    partial: bool = False,
    exact: bool = False,
) -> RemovableHandle:
    """See to it that the next loading of a checkpoint into a model is complete, or refused.

    What has another shape is found now; what is missing or unexpected when torch or mmengine load
    it, after modules have renamed what they rename.

    Args:
        model (nn.Module): Detector or classifier.
        checkpoint (Mapping[str, Any]): What was read. What starts fresh is removed.
        fine_tune (bool): Whether heads of another number of classes start fresh.
        partial (bool): Whether all else that does not fit starts fresh, too.
        exact (bool): Whether the backbone needs its own shapes, as the state of an optimizer does.
            Otherwise it fits position tables.

    Returns:
        RemovableHandle: To be removed after the loading.

    Raises:
        ValueError: If weights are not finite or, now or then, something does not fit.
    """
    model, weights = unwrap(model), weights_of(checkpoint)
    refuse = f'the checkpoint does not fit {type(model).__name__}: '
    if hasattr(model, 'adapt_checkpoint'):
        model.adapt_checkpoint(weights)
    require_finite(weights)

    own = model.state_dict()
    other = {}
    for key, value in weights.items():
        name = key.removeprefix('module.')
        if name in own and (exact or not name.startswith(_BACKBONE)):
            given, expected = tuple(getattr(value, 'shape', ())), tuple(own[name].shape)
            if given != expected:
                other[key] = f'{name} {given} instead of {expected}'
    heads = {key for key in other if _has_classes(model, key, weights[key], own)}
    fresh = heads if fine_tune else set()
    wrong = {'of another shape': [text for key, text in other.items() if key not in fresh]}
    if describe(wrong) and not partial:
        hint = (
            '; heads of another number of classes start fresh in a training with load_from only'
            if heads
            else ''
        )
        raise UserValueError(refuse + describe(wrong) + hint)
    for key in other:
        del weights[key]
    started = {key.removeprefix('module.') for key in other}

    def check(_, keys) -> None:
        missing = [key for key in keys.missing_keys if key not in started]
        wrong['missing'] = [key for key in missing if not key.endswith('num_batches_tracked')]
        wrong['unexpected'] = list(keys.unexpected_keys)
        keys.missing_keys.clear(), keys.unexpected_keys.clear()
        if describe(wrong) and not partial:
            raise UserValueError(refuse + describe(wrong) + _hint(own, weights))
        if fresh:
            texts = {'parameters': [text for key, text in other.items() if key in fresh]}
            _log(f'heads of another number of classes start fresh: {describe(texts)}')
        if describe(wrong):
            _log(f'the checkpoint is loaded in part, the rest starts fresh: {describe(wrong)}')

    return model.register_load_state_dict_post_hook(check)


def require_finite(weights: Mapping[str, Any]) -> None:
    """Refuse the weights of a training that went wrong.

    Raises:
        ValueError: If some are infinite or not a number.
    """
    wrong = [
        key
        for key, value in weights.items()
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and not value.isfinite().all()
    ]
    if wrong:
        raise UserValueError(
            f'the weights are not finite (NaN or infinity): {describe({"tensors": wrong})}; their '
            'training went wrong, most often by too high a learning rate'
        )


def weights_of(checkpoint: Any) -> Mapping[str, Any]:
    """The state dict of a checkpoint.

    Raises:
        ValueError: If it has none.
    """
    weights = checkpoint
    if isinstance(checkpoint, Mapping):
        weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, Mapping):
        raise UserValueError(f'the checkpoint has no state dict, only a {type(weights).__name__}')
    return weights


def unwrap(model: nn.Module) -> nn.Module:
    """The model that a checkpoint is of, inside of what distributes or augments it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _has_classes(model: nn.Module, key: str, value: Any, own: Mapping[str, torch.Tensor]) -> bool:
    """Whether a parameter of another shape is of a layer whose outputs are those of the classes."""
    name = key.removeprefix('module.')
    shape, expected = getattr(value, 'shape', ()), own[name].shape
    if 'rpn_head' in name or not expected or shape[1:] != expected[1:]:
        return False
    parts = name.split('.')[:-1]
    owners = (model.get_submodule('.'.join(parts[:depth])) for depth in range(1, len(parts)))
    return any(hasattr(owner, 'num_classes') for owner in owners)


def _hint(own: Collection[str], weights: Mapping[str, Any]) -> str:
    """What may be behind a checkpoint that does not fit, if anything is obvious."""
    names = [str(key).removeprefix('module.') for key in weights]
    if any(name in own for name in names):
        return ''
    if any(_BACKBONE + name in own for name in names):
        return (
            '; it is one of a backbone alone: give it to the backbone with '
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)"
        )
    return f'; it has nothing of this model, but {describe({"keys": names}) or "no keys at all"}'


def _log(message: str) -> None:
    print_log(message, logger='current')
