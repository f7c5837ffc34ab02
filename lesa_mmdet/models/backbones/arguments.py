"""What the arguments of a backbone have to be, checked before anything is built, and give."""

import logging
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from numbers import Integral
from typing import Any

from mmengine.logging import print_log

from ...upstream import ResNet
from ...utils.errors import UserTypeError, UserValueError

_DEFAULTS = {
    name: parameter.default for name, parameter in signature(ResNet.__init__).parameters.items()
}
_OWN = (
    'operator',
    'stages_with_operator',
    'first_block_conv',
    'input_size',
    'pretrained_conv',
    'zero_init_context',
)
_MAX_STAGES = 4


def to_size(size: int | Sequence[int]) -> tuple[int, int]:
    """An image size as (height, width) in pixels.

    Args:
        size (int | Sequence[int]): Both, or the side of a square.

    Raises:
        ValueError: If it is neither, or not positive.
    """
    both = (size, size) if isinstance(size, Integral) else size
    if not (_is_sequence(both) and len(both) == 2 and all(_is_count(length) for length in both)):
        raise UserValueError(
            f'input_size is {size!r}, but has to be (height, width) in pixels, two whole numbers '
            'from 1 on, or one for a square'
        )
    return tuple(map(int, both))


def map_size(image_size: tuple[int, int], strides: Sequence[int]) -> tuple[int, int]:
    """Size (H, W) of the map behind layers of some strides, each of which rounds up."""
    height, width = (-(-length // math.prod(strides)) for length in image_size)
    return height, width


def check_operator(operator: Mapping[str, Any] | None) -> None:
    """Check that an operator is given by a config, or is None.

    Raises:
        ValueError: If not.
    """
    if operator is not None and not (isinstance(operator, Mapping) and operator.get('type')):
        raise UserValueError(
            f"operator is {operator!r}, but has to be a dict with its type, as dict(type='LESA'), "
            'or None for plain convolution'
        )


def check_flags(name: str, flags: Sequence[bool], num_stages: int) -> None:
    """Check that each stage has its True or False: numbers of stages would be read as true.

    Raises:
        ValueError: If not.
    """
    if not (
        _is_sequence(flags)
        and len(flags) == num_stages
        and all(isinstance(flag, bool) for flag in flags)
    ):
        raise UserValueError(
            f'{name} is {flags!r}, but needs one True or False for each of {num_stages} stages'
        )


def check_flag(name: str, flag: bool) -> None:
    """Check that an argument is True or False: a path in its place would be read as true.

    Raises:
        ValueError: If not.
    """
    if not isinstance(flag, bool):
        raise UserValueError(f'{name} is {flag!r}, but has to be True or False')


def check_resnet(depth: int, depths: Sequence[int], arguments: Mapping[str, Any]) -> int:
    """Check the arguments of mmdet's ResNet, which asserts some of them without a word.

    Args:
        depth (int): Depth.
        depths (Sequence[int]): Those that there are.
        arguments (Mapping[str, Any]): The other arguments of ResNet that are given.

    Returns:
        int: The number of stages.

    Raises:
        TypeError: If there is no argument of a name.
        ValueError: If one of them is wrong.
    """
    if isinstance(depth, bool) or depth not in depths:
        raise UserValueError(f'depth is {depth!r}, but has to be one of {_join(depths)}')
    for name in arguments:
        if name not in _DEFAULTS:
            close = get_close_matches(name, (*_DEFAULTS, *_OWN), n=1)
            meant = f'; is {close[0]} meant?' if close else ''
            raise UserTypeError(f'{name!r} is no argument of the backbone{meant}')
    given = {**_DEFAULTS, **arguments}
    num_stages = given['num_stages']
    if not _is_count(num_stages) or num_stages > _MAX_STAGES:
        raise UserValueError(f'num_stages is {num_stages!r}, but has to be 1 to {_MAX_STAGES}')
    for name in ('strides', 'dilations'):
        value = given[name]
        if not (_is_sequence(value) and len(value) == num_stages and all(map(_is_count, value))):
            raise UserValueError(
                f'{name} is {value!r}, but needs a whole number from 1 on for each of '
                f'{num_stages} stages'
            )
    stages = range(num_stages)
    indices = given['out_indices']
    if not (_is_sequence(indices) and indices and all(index in stages for index in indices)):
        raise UserValueError(
            f'out_indices is {indices!r}, but has to name stages by {_join(stages)}, as (3,)'
        )
    frozen = given['frozen_stages']
    if frozen not in range(-1, num_stages + 1):
        raise UserValueError(
            f'frozen_stages is {frozen!r}, but has to be -1 (none), 0 (the stem) or up to '
            f'{num_stages} (all)'
        )
    for name in ('base_channels', 'in_channels'):
        if not _is_count(given[name]):
            raise UserValueError(
                f'{name} is {given[name]!r}, but has to be a whole number from 1 on'
            )
    _check_dcn(given['dcn'], given['stage_with_dcn'], num_stages)
    return num_stages


def _check_dcn(
    dcn: Mapping[str, Any] | None, stage_with_dcn: Sequence[bool], num_stages: int
) -> None:
    """Check that deformable convolutions are configured, and where they are."""
    if dcn is None:
        if any(stage_with_dcn):
            raise UserValueError(
                f'stage_with_dcn is {stage_with_dcn!r}, but there is no dcn: give its config, as '
                "dict(type='DCN', deform_groups=1, fallback_on_stride=False)"
            )
        return
    kind = dcn.get('type') if isinstance(dcn, Mapping) else None
    if kind not in ('DCN', 'DCNv2') and not isinstance(kind, type):
        raise UserValueError(
            f"dcn is {dcn!r}, but has to be a dict of type 'DCN' or 'DCNv2', as dict(type='DCN', "
            'deform_groups=1, fallback_on_stride=False)'
        )
    check_flags('stage_with_dcn', stage_with_dcn, num_stages)
    if not any(stage_with_dcn):
        print_log(
            'there is a dcn, but stage_with_dcn is False for all stages: nothing is deformable',
            logger='current',
            level=logging.WARNING,
        )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _join(values: Sequence[Any]) -> str:
    *others, last = map(str, values)
    return f'{", ".join(others)} or {last}' if others else last
