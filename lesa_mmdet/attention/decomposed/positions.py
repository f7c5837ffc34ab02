"""Relative positions: tables of offsets -> logits of a query towards every row and column."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RefusedValueError


def fit_table(table: Tensor, size: int) -> Tensor:
    """Fit a table of relative positions along one axis to a map of another size.

    A smaller map meets a part of the offsets only, so the table is cut around its centre and
    nothing changes. A larger map meets new offsets: the table is stretched linearly, its
    centre and its two ends staying where they are.

    Args:
        table (Tensor): Shape (2N - 1, d), entry ``o + N - 1`` for the offset ``o``.
        size (int): Size S of the map along the axis.

    Returns:
        Tensor: Shape (2S - 1, d).
    """
    symbolic = isinstance(size, torch.SymInt)  # in a program that is exported for many sizes
    built = (table.shape[0] + 1) // 2
    kept = torch.sym_min(built, size) if symbolic else min(built, size)
    table = table[built - kept : built + kept - 1]
    if not symbolic and kept == size:
        return table  # stretching would copy it
    stretched = F.interpolate(table.t()[None], size=2 * size - 1, mode='linear', align_corners=True)
    return stretched[0].t()


def pairwise(table: Tensor) -> Tensor:
    """Lay a table of offsets out as pairs of positions.

    Args:
        table (Tensor): Shape (2S - 1, d), entry ``o + S - 1`` for the offset ``o``.

    Returns:
        Tensor: Shape (S, S, d), entry ``[i, j]`` for the offset ``j - i``.
    """
    size = (table.shape[0] + 1) // 2
    position = torch.arange(size, device=table.device)
    offsets = position[None, :] - position[:, None] + size - 1
    if isinstance(size, torch.SymInt):
        return table[offsets]  # an exported program cannot tell that size**2 // size is size
    # Unlike table[offsets] it has a fast backward pass on CPUs.
    return table.index_select(0, offsets.flatten()).unflatten(0, (size, size))


def relative_logits(q: Tensor, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of every query towards every row and every column of the map.

    The position logit of query i towards key j is ``row[i, h_j] + col[i, w_j]`` with
    ``row[i, h] = q_i . height[h - h_i + H - 1]`` and ``col[i, w] = q_i . width[w - w_i + W - 1]``.

    Args:
        q (Tensor): Queries, shape (B, heads, H * W, d).
        height (Tensor): Shape (2H - 1, d), H that of the map.
        width (Tensor): Shape (2W - 1, d), W that of the map.

    Returns:
        tuple[Tensor, Tensor]: ``row`` of shape (B, heads, H * W, H) and ``col`` of shape
        (B, heads, H * W, W).

    Raises:
        ValueError: If the tables belong to a map of another size.
    """
    rows, cols = (height.shape[0] + 1) // 2, (width.shape[0] + 1) // 2
    if q.shape[2] != rows * cols:
        raise RefusedValueError(
            f'the tables are those of a {rows} x {cols} map, but there are queries of '
            f'{q.shape[2]} positions; fit_table() fits a table to a map'
        )
    along_height, along_width = pairwise(height), pairwise(width)
    q = q.unflatten(2, (rows, cols))
    row = torch.einsum('bnhwd,hkd->bnhwk', q, along_height)
    col = torch.einsum('bnhwd,wkd->bnhwk', q, along_width)
    return _flatten_map(row), _flatten_map(col)


def _flatten_map(x: Tensor) -> Tensor:
    """A tensor (B, heads, H, W, n) as (B, heads, H * W, n)."""
    if isinstance(x.shape[4], torch.SymInt):
        # Export asks whether the result is contiguous, for which it had to know that W <= W * W.
        return x.permute(0, 1, 4, 2, 3).flatten(3).mT
    return x.flatten(2, 3)
