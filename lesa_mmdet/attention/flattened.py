"""Attention with one table over flattened offsets: the small, fixed maps of ImageNet training."""

from typing import Callable

import torch
from torch import Tensor

from .positions import pairwise


def attend_flattened(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, normalize: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Dense attention with query, key and value embeddings of ``a - b``, a and b flattened places.

    With ``E[:, a, b] = table[:, a - b + N - 1]`` split into its parts Eq, Ek and Ev, the
    similarity terms of query i and key j are ``q_i . k_j``, ``q_i . Eq[:, i, j]`` and
    ``k_j . Ek[:, j, i]``.

    Args:
        q (Tensor): Queries, shape (B, heads, N, d).
        k (Tensor): Keys, shape (B, heads, N, d).
        v (Tensor): Values, shape (B, heads, N, dv).
        table (Tensor): Shape (2d + dv, 2N - 1).
        normalize (Callable): Batch norm of the terms, (B, 3 * heads, N, N) to the same shape.

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
