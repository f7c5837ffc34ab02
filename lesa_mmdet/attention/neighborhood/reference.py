"""The definition: every neighbourhood laid out in memory, readable, slow."""

import torch.nn.functional as F
from torch import Tensor

from ..precision import at_least_float, without_autocast
from .window import kernel_size


def attend_neighborhood_reference(
    v: Tensor, weights: Tensor, mul: Tensor | None, add: Tensor | None, dilation: int
) -> Tensor:
    """The weighted sum over k * k copies of the values.

    Takes and returns what :func:`lesa_mmdet.attention.attend_neighborhood` does.
    """
    size = kernel_size(weights)
    with without_autocast(v.device):
        values, coefficients = at_least_float(v, weights[:, :, None])
        neighbours = F.unfold(values, size, dilation, padding=size // 2 * dilation)
        neighbours = neighbours.reshape(*_per_head(v, weights), size**2, *v.shape[2:])
        if mul is not None:
            coefficients = coefficients * _per_channel(mul, weights)
        if add is not None:
            coefficients = coefficients + _per_channel(add, weights)
        return (coefficients * neighbours).sum(3).reshape(v.shape).to(v.dtype)


def _per_head(v: Tensor, weights: Tensor) -> tuple[int, int, int]:
    """Batch, heads, channels of a head."""
    batch, heads = weights.shape[:2]
    return batch, heads, v.shape[1] // heads


def _per_channel(matrix: Tensor, weights: Tensor) -> Tensor:
    """A matrix (k, k) a channel as (heads, channels of a head, k * k, 1, 1)."""
    (matrix,) = at_least_float(matrix)
    return matrix.reshape(weights.shape[1], -1, weights.shape[2], 1, 1)
