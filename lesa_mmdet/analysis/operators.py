"""The operators in a model."""

import re

from torch import nn

from ..models.layers import Operator
from ..upstream import Bottleneck
from ..utils.errors import UserValueError


def operators(model: nn.Module) -> dict[str, Operator]:
    """The operators of a model by the names of their blocks, in the order they run.

    Blocks of a ResNet are called 'layer3.1', those of a Swin 'stages.2.blocks.1'.

    Args:
        model (nn.Module): Detector, classifier or backbone.

    Raises:
        ValueError: If there is none.
    """
    backbone = getattr(model, 'backbone', model)
    found = {name: layer for name, layer in mixers(backbone).items() if isinstance(layer, Operator)}
    if not found:
        raise UserValueError(
            f'{type(backbone).__name__} has no operator, only convolution: take the config and '
            'checkpoint of a model with self-attention or LESA'
        )
    return found


def _block_of(name: str) -> str:
    """The part of a layer's name up to its last number: blocks are numbered in their stages."""
    return re.sub(r'^((?:.*\.)?\d+)\..*$', r'\1', name)


def mixers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model that mix positions, by the names of their blocks, in their order.

    Args:
        model (nn.Module): Detector, classifier or backbone.

    Returns:
        dict[str, nn.Module]: Operators, and the 3x3 convolutions of bottlenecks without one.
    """
    backbone = getattr(model, 'backbone', model)
    found = {}
    for name, module in backbone.named_modules():
        if isinstance(module, Operator):
            block = _block_of(name)
            taken = found.get(block, module) is not module  # by another layer of the block
            found[name if taken else block] = module
        elif isinstance(module, Bottleneck):
            found[name] = module.conv2
    return found


def get_operator(model: nn.Module, name: str) -> Operator:
    """The operator of a block.

    Args:
        model (nn.Module): Detector, classifier or backbone.
        name (str): One of the names of :func:`operators`.

    Raises:
        ValueError: If there is none of that name.
    """
    found = operators(model)
    if name not in found:
        raise UserValueError(f'layer {name!r} has no operator; available: {", ".join(found)}')
    return found[name]
