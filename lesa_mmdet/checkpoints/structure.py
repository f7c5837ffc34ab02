"""What checkpoints of mmengine hold. In one that somebody else has written, it may be missing."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from ..utils.errors import UserValueError
from ..utils.schema import (
    ANY,
    COUNT,
    DICT,
    FINITE,
    NUMBER,
    TEXT,
    Each,
    Kind,
    optional,
    require,
    whole,
)
from ..utils.text import shown

TENSOR = Kind('a tensor', lambda value: isinstance(value, Tensor))
_CLASSES = Kind(
    'text or a list of texts',
    lambda value: (
        isinstance(value, str) or isinstance(value, (list, tuple)) and all(map(TEXT.matches, value))
    ),
)
# What is read of a checkpoint in any case, if it is there.
_CHECKPOINT = {
    'meta?': optional(DICT),
    'state_dict?': Each(ANY),
}
_META = {
    'CLASSES?': optional(_CLASSES),
    'dataset_meta?': optional(DICT),
}
# What a training goes on from.
_RESUMED = {
    'meta': {
        'epoch': COUNT,
        'iter': COUNT,
        'seed?': optional(whole(0, 2**32 - 1)),
        'cfg?': optional(TEXT),
    },
    'message_hub': {key: Each(ANY) for key in ('log_scalars', 'runtime_info', 'resumed_keys')},
}
MAX_LOGGED = 10_000  # entries of a message hub, each of which mmengine compares with all others
_SCALAR = Kind(
    'a finite number',
    lambda v: NUMBER.matches(v.item() if isinstance(v, Tensor) and v.numel() == 1 else v),
)
_OPTIMIZER = {'state': DICT, 'param_groups': [{'params': [COUNT], 'lr': _SCALAR}]}


def require_checkpoint(checkpoint: Any, name: str) -> None:
    """Refuse a file whose parts are of other kinds than those that loading looks at.

    Args:
        checkpoint (Any): What was read.
        name (str): What to call the file in errors.

    Raises:
        ValueError: If its weights are not in a dict, or what is said about them is something else.
    """
    if not isinstance(checkpoint, Mapping):
        return  # the model says what it lacks
    require(checkpoint, _CHECKPOINT, name)
    meta = checkpoint.get('meta') or {}
    require(meta, _META, f'{name}: meta')
    require(meta.get('dataset_meta') or {}, {'classes?': optional(_CLASSES)}, f'{name}: its data')
    metadata = getattr(checkpoint.get('state_dict', checkpoint), '_metadata', {})
    require(metadata, Each({'version?': optional(COUNT)}), f'{name}: versions of its layers')


def require_resumable(checkpoint: Mapping[str, Any], runner: Runner) -> None:
    """Refuse a checkpoint from which a training cannot go on, and say what it goes on without.

    Args:
        checkpoint (Mapping[str, Any]): What was read.
        runner (Runner): Whose optimizer and schedules are built.

    Raises:
        ValueError: If its epoch, seed, log or optimizer are missing or something else, or the
            state is one of another optimizer or other schedules.
    """
    name = 'the checkpoint cannot be resumed from'
    require(checkpoint, _RESUMED, name)
    for key, entries in checkpoint['message_hub'].items():
        if isinstance(entries, Mapping) and len(entries) > MAX_LOGGED:
            raise UserValueError(
                f'{name}: its message_hub.{shown(key)} has {len(entries):,} entries, but may have '
                f'{MAX_LOGGED:,}'
            )
    scores = {
        key: value
        for key, value in checkpoint['message_hub']['runtime_info'].items()
        if str(key).startswith('best_score')
    }
    require(scores, Each(FINITE), name)
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)  # None if there are several
    if optimizer is not None and 'optimizer' in checkpoint:
        require(checkpoint['optimizer'], _OPTIMIZER, f'{name}: optimizer')
        _require_same_parameters(checkpoint['optimizer'], optimizer, name)
    schedules = runner.param_schedulers
    if isinstance(schedules, list) and 'param_schedulers' in checkpoint:
        require(checkpoint['param_schedulers'], [DICT], f'{name}: param_schedulers')
        _require_same_schedules(checkpoint['param_schedulers'], schedules, name)
    for key, there, what in (
        ('optimizer', True, 'optimizer'),
        ('param_schedulers', schedules, 'schedules of the learning rate'),
    ):
        if there and key not in checkpoint:
            print_log(
                f'The checkpoint has no state of the {what} ({key}): the training goes on without, '
                'and not exactly.',
                'current',
            )


def _require_same_parameters(state: Mapping[str, Any], optimizer: Optimizer, name: str) -> None:
    """Compare the numbers and shapes of the parameters that an optimizer's state is of."""
    own, given = optimizer.param_groups, state['param_groups']
    numbers = [[len(group['params']) for group in groups] for groups in (given, own)]
    if numbers[0] != numbers[1]:
        raise UserValueError(
            f'{name}: its optimizer has {sum(numbers[0])} parameters in {len(given)} groups, this '
            f'one {sum(numbers[1])} in {len(own)}; begin a new training from it with load_from'
        )
    twins = [
        _try_values(group, like, optimizer, f'{name}: optimizer.param_groups[{index}]')
        for index, (group, like) in enumerate(zip(given, own, strict=True))
    ]
    for group, like, expected in zip(given, own, twins, strict=True):
        for index, parameter in zip(group['params'], like['params'], strict=True):
            values = state['state'].get(index, {})
            require(values, Each(ANY), f'{name}: optimizer.state[{index}]')
            if any(value is not None for value in values.values()):
                _require_state(values, expected, parameter, f'{name}: optimizer.state[{index}]')


def _try_values(
    group: Mapping[str, Any], own: Mapping[str, Any], optimizer: Optimizer, name: str
) -> Mapping[str, Any]:
    """Let another optimizer of torch, of one number, take the values of a group, and a step.

    Returns:
        Mapping[str, Any]: The state that it has then; nothing of optimizers that are not torch's.
    """
    for key, value in group.items():
        if key != 'params' and key in own and not _is_alike(own[key], value):
            raise UserValueError(
                f'{name}.{shown(key)} is {shown(value)}, but has to be like {shown(own[key])}'
            )
    kind = type(optimizer)
    if not kind.__module__.startswith('torch.optim.') or not own['params']:
        return {}
    values = {key: group[key] for key in signature(kind).parameters if key in group}
    values.update(params=[nn.Parameter(torch.zeros(1, device=own['params'][0].device))])
    values['params'][0].grad = torch.zeros_like(values['params'][0])
    try:
        twin = kind(**values)
        twin.step()
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise UserValueError(f'{name} is none of {kind.__name__}: {shown(error, 200)}') from error
    return twin.state[values['params'][0]]


def _require_state(
    values: Mapping[str, Any], expected: Mapping[str, Any], parameter: Tensor, name: str
) -> None:
    """Compare what an optimizer keeps of a parameter with what it would keep of another."""
    for key, like in expected.items():
        value = values.get(key)
        is_shaped = isinstance(like, Tensor) and like.dim() > 0
        if isinstance(value, Tensor) and is_shaped and value.shape != parameter.shape:
            raise UserValueError(
                f'{name}: {shown(key)} has the shape {tuple(value.shape)}, the parameter '
                f'{tuple(parameter.shape)}'
            )
        is_finite = isinstance(value, Tensor) and bool(value.isfinite().all())
        if like is not None and not (is_finite if is_shaped else _SCALAR.matches(value)):
            raise UserValueError(f'{name}: {shown(key)} is {shown(value)}, or is not finite')


def _is_alike(own: Any, value: Any) -> bool:
    """Whether a value can take the place of another: of the same kind, and finite."""
    if isinstance(own, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(own)
            and all(map(_is_alike, own, value))
        )
    if own is None or isinstance(own, bool):
        return value is None or isinstance(value, bool) or (own is None and NUMBER.matches(value))
    if isinstance(own, Tensor) or NUMBER.matches(own):
        return _SCALAR.matches(value)
    return type(value) is type(own)


def _require_same_schedules(states: list, schedules: list, name: str) -> None:
    """Compare the states of schedules with those that there are."""
    if len(states) != len(schedules):
        raise UserValueError(
            f'{name}: it has {len(states)} schedules (param_scheduler), the config has '
            f'{len(schedules)}; begin a new training from it with load_from'
        )
    for index, (state, schedule) in enumerate(zip(states, schedules, strict=True)):
        own = schedule.state_dict()
        for key, value in state.items():
            # What it does not know is of another version, unless it takes the place of a method.
            if key in own:
                alike = _is_alike(own[key], value) and (key != 'param_name' or own[key] == value)
            else:
                alike = not hasattr(schedule, str(key))
            if not alike:
                raise UserValueError(
                    f'{name}: param_schedulers[{index}].{shown(key)} is {shown(value)}, which is '
                    f'none of {type(schedule).__name__}'
                )
