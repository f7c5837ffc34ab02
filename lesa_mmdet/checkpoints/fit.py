"""Loading strictly: a checkpoint fits a model in every key, or is refused with what does not."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import load_state_dict
from torch import nn

from ..utils.errors import UserValueError
from .adapt import describe, log, require_finite

_BACKBONE = 'backbone.'  # which looks at its part itself, see adapt_state_dict


def load_strict(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Load a checkpoint into a model, all of it.

    Args:
        model (nn.Module): Detector or classifier.
        checkpoint (Mapping[str, Any]): What was read.

    Raises:
        ValueError: If it does not fit, naming what is missing, unexpected or of another shape.
    """
    with strict_loading(model, checkpoint):
        load_state_dict(unwrap(model), _without_wrapper(weights_of(checkpoint)))


@contextmanager
def strict_loading(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    *,
    fine_tune: bool = False,
    partial: bool = False,
    exact: bool = False,
) -> Generator[None, None, None]:
    """Inside this context, mmengine loads a checkpoint into a model completely, or it is refused.

    What has another shape is found when the context begins; what is missing or unexpected, when
    mmengine loads the checkpoint, after modules have renamed their keys.

    Args:
        model (nn.Module): Detector or classifier.
        checkpoint (Mapping[str, Any]): What was read.
        fine_tune (bool): Whether heads of another number of classes start fresh.
        partial (bool): Whether all else that does not fit starts fresh, too.
        exact (bool): Whether the backbone needs its own shapes, as the state of an optimizer does.
            Otherwise it fits position tables.

    Raises:
        ValueError: If weights are not finite, or something does not fit.
    """
    model, weights = unwrap(model), _without_wrapper(weights_of(checkpoint))
    adapt: Any = getattr(model, 'adapt_checkpoint', None)
    if adapt is not None:
        adapt(weights)

    made = (name for name, part in model.named_modules() if hasattr(part, 'from_convolution'))
    if exact and (name := next((name for name in made if f'{name}.weight' in weights), None)):
        raise UserValueError(
            f'the checkpoint has a convolution where {type(model).__name__} has an operator '
            f'({name}), so that a training cannot go on from it: begin a new one with load_from'
        )
    own = model.state_dict()
    other = {
        name: f'{name} {_shape(value)} instead of {_shape(own[name])}'
        for name, value in weights.items()
        if name in own
        and (exact or not name.startswith(_BACKBONE))
        and _shape(value) != _shape(own[name])
    }
    heads = [name for name in other if _has_classes(model, name, weights[name], own)]
    fresh = heads if fine_tune else []
    wrong = {'of another shape': [text for name, text in other.items() if name not in fresh]}

    def refuse(hint: str) -> None:
        if describe(wrong) and not partial:
            sentence = f'the checkpoint does not fit {type(model).__name__}: {describe(wrong)}'
            raise UserValueError(sentence + hint)

    def leave_out(_: nn.Module, state_dict: dict[str, Any], *__: Any) -> None:
        for name in other:
            del state_dict[name]

    def compare(_: nn.Module, keys: Any) -> None:
        missing = [key for key in keys.missing_keys if key not in other]
        wrong['missing'] = [key for key in missing if not key.endswith('num_batches_tracked')]
        wrong['unexpected'] = list(keys.unexpected_keys)
        keys.missing_keys.clear()
        keys.unexpected_keys.clear()
        refuse(_hint(own, weights))
        if fresh:
            texts = {'parameters': [other[name] for name in fresh]}
            log(f'heads of another number of classes start fresh: {describe(texts)}')
        if describe(wrong):
            log(f'the checkpoint is loaded in part, the rest starts fresh: {describe(wrong)}')

    head_hint = '; heads of another number of classes start fresh in a training with load_from only'
    refuse(head_hint if heads else '')
    require_finite(weights, own)
    handles = (
        model.register_load_state_dict_pre_hook(leave_out),
        model.register_load_state_dict_post_hook(compare),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def weights_of(checkpoint: Any) -> Mapping[str, Any]:
    """The state dict of a checkpoint.

    Raises:
        ValueError: If it has none, or one of other things than tensors with names.
    """
    weights = checkpoint
    if isinstance(checkpoint, Mapping):
        weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, Mapping):
        raise UserValueError(f'the checkpoint has no state dict, only a {type(weights).__name__}')
    others = [key for key, value in weights.items() if not isinstance(value, torch.Tensor)]
    wrong = {'keys are no text': [key for key in weights if not isinstance(key, str)]}
    if len(others) < len(weights):  # else it is no state dict, and the model says what it lacks
        wrong['values are no tensors'] = others
    if problems := describe(wrong):
        raise UserValueError(f'the state dict of the checkpoint is broken: {problems}')
    return weights


def unwrap(model: nn.Module) -> nn.Module:
    """The model that a checkpoint is of, inside of what distributes or augments it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    return model


def _without_wrapper(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights without the prefix that a distributed model gives them; mmengine drops it, too."""
    return {key.removeprefix('module.'): value for key, value in weights.items()}


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, 'shape', ()))


def _has_classes(model: nn.Module, name: str, value: Any, own: Mapping[str, torch.Tensor]) -> bool:
    """Whether a parameter of another shape is of a layer whose outputs are those of the classes."""
    shape, expected = _shape(value), own[name].shape
    if 'rpn_head' in name or not expected or shape[1:] != expected[1:]:
        return False
    parts = name.split('.')[:-1]
    owners = (model.get_submodule('.'.join(parts[:depth])) for depth in range(1, len(parts)))
    return any(hasattr(owner, 'num_classes') for owner in owners)


def _hint(own: Collection[str], weights: Mapping[str, Any]) -> str:
    """What may be behind a checkpoint that does not fit, if anything is obvious."""
    if any(name in own for name in weights):
        return ''
    if any(f'{_BACKBONE}{name}' in own for name in weights):
        return (
            '; it is one of a backbone alone: give it to the backbone with '
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)"
        )
    keys = describe({'keys': list(weights)}) or 'no keys at all'
    return f'; it has nothing of this model, but {keys}'
