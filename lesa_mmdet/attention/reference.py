"""The definition: dense, readable, slow. Every other form is tested against it."""

from typing import Callable

import torch
from torch import Tensor

from .precision import at_least_float


def attend_reference(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention through the whole (HW x HW) similarity matrix.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does.
    """
    with torch.autocast(q.device.type, enabled=False):
        content, position = similarity_terms(*at_least_float(q, k, row, col))
        return content.add_(position).softmax(-1).to(v.dtype) @ v


def attend_normalized(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor,
    col: Tensor,
    normalize: Callable[[Tensor], Tensor],
) -> Tensor:
    """Attention whose similarity terms pass a batch norm: what LESA defines.

    The operators compute the same from folded scales (:mod:`lesa_mmdet.attention.statistics`).

    Args:
        q (Tensor): Queries, shape (B, heads, H * W, d).
        k (Tensor): Keys, shape (B, heads, H * W, d).
        v (Tensor): Values, shape (B, heads, H * W, dv).
        row (Tensor): Shape (B, heads, H * W, H).
        col (Tensor): Shape (B, heads, H * W, W).
        normalize (Callable): The batch norm, on (B, 2 * heads, H * W, H * W).

    Returns:
        Tensor: Shape (B, heads, H * W, dv).
    """
    terms = torch.cat(similarity_terms(q, k, row, col), dim=1)
    logits = normalize(terms).unflatten(1, (2, -1)).sum(1)
    return logits.softmax(-1) @ v


def similarity_terms(q: Tensor, k: Tensor, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """Content and position term of every query and key, each (B, heads, HW, HW)."""
    content = q @ k.transpose(-1, -2)
    position = (row[..., :, None] + col[..., None, :]).flatten(-2)
    return content, position
