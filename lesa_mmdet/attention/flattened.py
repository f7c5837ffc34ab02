"""Attention with one table over flattened offsets: the small, fixed maps of ImageNet training.

Dense, but never more than three tensors of the similarities' size, the softmax's result included.
"""

from typing import Any

import torch
from torch import Tensor

from .decomposed.positions import pairwise
from .precision import at_least_float, without_autocast
from .registration import is_transformed


def attend_flattened(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query: Tensor,
    key: Tensor,
    of_query: Tensor,
    of_key: Tensor,
    of_value: Tensor,
) -> tuple[Tensor, Tensor]:
    """Softmax over j of ``q_i . k_j + query_i . of_query[i, j] + key_j . of_key[j, i]``.

    Scales of the three terms are folded into their inputs. The softmax is computed in float32 or
    wider.

    Args:
        q (Tensor): Queries that meet the keys, shape (B, heads, N, d).
        k (Tensor): Keys, shape (B, heads, N, d).
        v (Tensor): Values, shape (B, heads, N, dv).
        query (Tensor): Queries that meet the query embeddings, shape (B, heads, N, d).
        key (Tensor): Keys that meet the key embeddings, shape (B, heads, N, d).
        of_query (Tensor): Query embeddings, shape (N, N, d), see :func:`pairwise_embeddings`.
        of_key (Tensor): Key embeddings, shape (N, N, d).
        of_value (Tensor): Value embeddings, shape (N, N, dv).

    Returns:
        tuple[Tensor, Tensor]: The attended values and the attended value embeddings, each of
        shape (B, heads, N, dv).
    """
    weights = flattened_weights(q, k, query, key, of_query, of_key).to(v.dtype)
    # Neither torch.func nor a saved trace takes the function: there, one more tensor is alive.
    plain = torch.jit.is_tracing() or is_transformed()
    with without_autocast(v.device):
        sums = _weighted_sums if plain else _WeightedSums.apply
        return sums(weights, v, of_value.to(v.dtype))


def flattened_weights(
    q: Tensor, k: Tensor, query: Tensor, key: Tensor, of_query: Tensor, of_key: Tensor
) -> Tensor:
    """Softmax weights of n queries.

    Args:
        q (Tensor): Shape (B, heads, n, d).
        k (Tensor): Shape (B, heads, N, d).
        query (Tensor): Shape (B, heads, n, d).
        key (Tensor): Shape (B, heads, N, d).
        of_query (Tensor): Shape (n, N, d).
        of_key (Tensor): Shape (N, n, d).

    Returns:
        Tensor: Shape (B, heads, n, N).
    """
    inputs = at_least_float(q, k, query, key, of_query, of_key)
    q, k, query, key, of_query, of_key = inputs
    with without_autocast(q.device):
        logits = q @ k.transpose(-1, -2)
        logits += _products_of_pairs(query, of_query)
        logits += _products_of_pairs(key, of_key).transpose(-1, -2)
        return logits.softmax(-1)


def _products_of_pairs(x: Tensor, embeddings: Tensor) -> Tensor:
    """``x_i . embeddings[i, j]`` of (B, heads, n, d) and (n, N, d), as (B, heads, n, N)."""
    return torch.einsum('bnid,ijd->bnij', x, embeddings)


def _weighted_sums(weights: Tensor, v: Tensor, of_value: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over j of ``weights[i, j]`` times ``v_j`` and times ``of_value[i, j]``."""
    return weights @ v, torch.einsum('bnij,ijd->bnid', weights, of_value)


class _WeightedSums(torch.autograd.Function):
    """:func:`_weighted_sums` that need less memory for the backward pass.

    The two gradients of the weights are added in place, so that there is no third tensor of their
    size.
    """

    @staticmethod
    # pyrefly: ignore [bad-override]
    def forward(ctx: Any, weights: Tensor, v: Tensor, of_value: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weights, v, of_value)
        return _weighted_sums(weights, v, of_value)

    @staticmethod
    # pyrefly: ignore [bad-override]
    def backward(ctx: Any, grad_values: Tensor, grad_embeddings: Tensor) -> tuple[Tensor, ...]:
        weights, v, of_value = ctx.saved_tensors
        grad = grad_values @ v.transpose(-1, -2)
        grad += _products_of_pairs(grad_embeddings, of_value)
        grad_v = weights.transpose(-1, -2) @ grad_values
        return grad, grad_v, torch.einsum('bnij,bnid->ijd', weights, grad_embeddings)


def pairwise_embeddings(table: Tensor, key_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the table of flattened offsets out as embeddings of pairs of positions.

    Args:
        table (Tensor): Shape (2d + dv, 2N - 1), entry ``o + N - 1`` for the offset ``o``.
        key_dim (int): Channels d of queries and keys.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Query, key and value embeddings, (N, N, d), (N, N, d) and
        (N, N, dv), entries ``[a, b]`` for the offset ``a - b`` of flattened positions.
    """
    embeddings = pairwise(table.t().flip(0))  # it runs over b - a
    return embeddings.split((key_dim, key_dim, table.shape[0] - 2 * key_dim), dim=-1)
