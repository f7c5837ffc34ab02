"""The definition: dense, readable, slow. Every other form is tested against it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..precision import at_least_float, without_autocast
from .positions import pairwise


def attend_reference(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention through the whole (HW x HW) similarity matrix.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does.
    """
    with without_autocast(q.device):
        return decomposed_weights(q, k, row, col).to(v.dtype) @ v


def decomposed_weights(q: Tensor, k: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Softmax weights of n queries, in float32 or wider.

    Args:
        q (Tensor): Queries, shape (B, heads, n, d).
        k (Tensor): Keys, shape (B, heads, H * W, d).
        row (Tensor): Shape (B, heads, n, H).
        col (Tensor): Shape (B, heads, n, W).

    Returns:
        Tensor: Shape (B, heads, n, H * W).
    """
    with without_autocast(q.device):
        content, position = similarity_terms(*at_least_float(q, k, row, col))
        return content.add_(position).softmax(-1)


def attend_normalized(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor,
    col: Tensor,
    normalize: Callable[[Tensor], Tensor],
) -> Tensor:
    """Attention whose similarity terms pass a batch norm: what LESA defines.

    The operators compute the same from folded scales (:mod:`lesa_mmdet.attention.scales`).

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


def attend_flattened_normalized(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, normalize: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Attention with query, key and value embeddings of ``a - b``, a and b flattened positions.

    With ``E[:, a, b] = table[:, a - b + N - 1]`` split into its parts Eq, Ek and Ev, the
    similarity terms of query i and key j are ``q_i . k_j``, ``q_i . Eq[:, i, j]`` and
    ``k_j . Ek[:, j, i]``.

    Args:
        q (Tensor): Queries, shape (B, heads, N, d).
        k (Tensor): Keys, shape (B, heads, N, d).
        v (Tensor): Values, shape (B, heads, N, dv).
        table (Tensor): Shape (2d + dv, 2N - 1).
        normalize (Callable): The batch norm, on (B, 3 * heads, N, N).

    Returns:
        tuple[Tensor, Tensor]: The attended values and the attended value embeddings, each of
        shape (B, heads, N, dv).
    """
    d, dv = q.shape[-1], v.shape[-1]
    # pairwise() runs over j - i; the table runs over i - j.
    embedding = pairwise(table.t().flip(0))  # (N, N, 2d + dv), [i, j] for i - j
    of_query, of_key, of_value = embedding.split((d, d, dv), dim=-1)
    terms = (
        q @ k.transpose(-1, -2),
        torch.einsum('bnid,ijd->bnij', q, of_query),
        torch.einsum('bnjd,jid->bnij', k, of_key),
    )
    logits = normalize(torch.cat(terms, dim=1)).unflatten(1, (3, -1)).sum(1)
    weights = logits.softmax(-1)
    return weights @ v, torch.einsum('bnij,ijd->bnid', weights, of_value)


def similarity_terms(q: Tensor, k: Tensor, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """Content and position term of every query and key, each (B, heads, HW, HW)."""
    content = q @ k.transpose(-1, -2)
    position = (row[..., :, None] + col[..., None, :]).flatten(-2)
    return content, position
