"""What the backends share: the window around a position, and how their sums become operators."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..registration import register_operator

# Numbers (C, k, k) of each channel and neighbour, if they are given.
Matrix: TypeAlias = Tensor | None


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
        rows, cols = (_overlap(*axis) for axis in zip(offsets, weights.shape[-2:], strict=True))
        if rows and cols:
            yield Neighbour(index, (..., rows[0], cols[0]), (..., rows[1], cols[1]))


def _overlap(offset: int, length: int) -> tuple[slice, ...]:
    """Positions along an axis that have a neighbour at an offset, and these; () if none has."""
    first, last = max(0, -offset), min(length, length - offset)
    if first >= last:
        return ()
    return slice(first, last), slice(first + offset, last + offset)


def neighborhood_operator(
    backend: str, name: str, weighted_sum: Callable, weights_gradients: Callable
) -> Callable[..., Tensor]:
    """Make an operator of PyTorch of what a backend computes.

    Args:
        backend (str): Name of the backend, for error messages.
        name (str): Name of the operator.
        weighted_sum (Callable): Takes values, weights, mul, add, dilation and ``transposed``;
            returns the sum. Transposed, it takes the output's gradient for the values, and returns
            the values' gradient.
        weights_gradients (Callable): Takes the output's gradient, values, weights, mul, add and
            dilation; returns the gradients of weights, mul and add, empty where there is none.

    Returns:
        Callable: Takes values, weights, mul, add and dilation, returns the sum, as
        :func:`lesa_mmdet.attention.attend_neighborhood` has them.
    """

    def forward(*inputs: Any) -> Tensor:
        return weighted_sum(*inputs, transposed=False)

    def backward(grad_out: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        v, *others, needed = inputs
        grads = [grad_out.new_empty(0) for _ in needed]
        if needed[0]:
            grads[0] = weighted_sum(grad_out, *others, transposed=True)
        if any(needed[1:]):
            grads[1:] = weights_gradients(grad_out, v, *others)
        return tuple(grads)

    def empty_gradients(grad_out: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        _, weights, mul, add, _, needed = inputs
        needed = [needed[0], *3 * [any(needed[1:])]]
        return tuple(
            torch.empty_like(x) if need and x is not None else grad_out.new_empty(0)
            for x, need in zip((grad_out, weights, mul, add), needed, strict=True)
        )

    return register_operator(
        backend,
        name,
        'Tensor v, Tensor weights, Tensor? mul, Tensor? add, int dilation',
        forward=forward,
        backward=backward,
        empty_outputs=lambda v, *_: torch.empty_like(v),
        empty_gradients=empty_gradients,
    )
