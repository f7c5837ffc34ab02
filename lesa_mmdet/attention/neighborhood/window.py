"""The k x k window around a position: its size, and where its neighbours are."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


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
