"""What the backends share: the window around a position, and the shapes of what they return."""

import math
from collections.abc import Iterator
from typing import NamedTuple, Optional

import torch
from torch import Tensor

# Of the operators that PyTorch sees.
ARGUMENTS = 'Tensor v, Tensor weights, Tensor? mul, Tensor? add, int dilation'


class Neighbour(NamedTuple):
    """One of the k * k neighbours, for all positions of a map that have it.

    Attributes:
        index (int): Its index in the window, in row-major order.
        here (tuple): The positions that have it, as an index into (..., H, W).
        there (tuple): Where it is for these positions, likewise.
    """

    index: int
    here: tuple
    there: tuple


def kernel_size(weights: Tensor) -> int:
    """The k of weights (B, heads, k * k, H, W)."""
    return math.isqrt(weights.shape[2])


def neighbours(weights: Tensor, dilation: int) -> Iterator[Neighbour]:
    """The neighbours that any position of the map has, for weights (B, heads, k * k, H, W)."""
    size = kernel_size(weights)
    for index in range(size * size):
        offsets = ((tap - size // 2) * dilation for tap in divmod(index, size))
        rows, cols = (_overlap(*axis) for axis in zip(offsets, weights.shape[-2:]))
        if rows and cols:
            yield Neighbour(index, (..., rows[0], cols[0]), (..., rows[1], cols[1]))


def _overlap(offset: int, length: int) -> tuple[slice, ...]:
    """Positions along an axis that have a neighbour at an offset, and these; () if none has."""
    first, last = max(0, -offset), min(length, length - offset)
    if first >= last:
        return ()
    return slice(first, last), slice(first + offset, last + offset)


def empty_output(v: Tensor, *_) -> Tensor:
    """Memory for the weighted sum, in the order of the values."""
    return torch.empty_like(v)


def empty_gradients(
    grad_out: Tensor,
    v: Tensor,
    weights: Tensor,
    mul: Optional[Tensor],
    add: Optional[Tensor],
    dilation: int,
    needed: list[bool],
) -> tuple[Tensor, ...]:
    """Memory for the gradients of v, weights, mul and add; none of it where there is none."""
    needed = needed[0], *3 * [any(needed[1:])]
    return tuple(
        torch.empty_like(x) if need and x is not None else grad_out.new_empty(0)
        for x, need in zip((grad_out, weights, mul, add), needed)
    )
