"""What checkpoints of mmengine hold, of which others may have written anything else."""

from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from ..utils.errors import UserValueError
from ..utils.schema import ANY, COUNT, DICT, FINITE, TEXT, Each, Kind, optional, require, whole
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
    'message_hub': {
        'log_scalars': Each(ANY),
        'runtime_info': Each(ANY),
        'resumed_keys': Each(ANY),
    },
}
_RATE = Kind('a finite number', lambda v: FINITE.matches(v) or isinstance(v, Tensor))
_OPTIMIZER = {'state': DICT, 'param_groups': [{'params': [COUNT], 'lr': _RATE}]}


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
    indices = [index for group in given for index in group['params']]
    parameters = [parameter for group in own for parameter in group['params']]
    for index, parameter in zip(indices, parameters, strict=True):
        values = state['state'].get(index, {})
        require(values, Each(ANY), f'{name}: optimizer.state[{index}]')
        for key, value in values.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise UserValueError(
                    f'{name}: {shown(key)} of parameter {index} of the optimizer has the shape '
                    f'{tuple(value.shape)}, the parameter {tuple(parameter.shape)}'
                )


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
            alike = key in own or not hasattr(schedule, str(key))
            if own.get(key) is not None and not isinstance(value, type(own[key])):
                alike = FINITE.matches(value) and FINITE.matches(own[key])
            if not alike:
                raise UserValueError(
                    f'{name}: param_schedulers[{index}].{shown(key)} is {shown(value)}, which is '
                    f'none of {type(schedule).__name__}'
                )
