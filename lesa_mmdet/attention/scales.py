"""Batch norm of the similarity terms without the similarity matrix.

The softmax drops whatever is constant along the keys, so a batch norm over similarity terms of
shape (B, heads, HW, HW) comes down to one scale per head and term. In training mode the scale
needs the variance of the terms, which follows from the moments of queries, keys and position
tables. All second moments are taken around their means: nothing cancels however large those are.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from .decomposed.positions import pairwise
from .precision import at_least_float, without_autocast


def similarity_scales(
    norm: _BatchNorm, q: Tensor, k: Tensor, height: Tensor, width: Tensor
) -> tuple[Tensor, Tensor]:
    """Scales that give the softmax what the batch norm over both similarity terms gives it.

    In training mode the running statistics of ``norm`` are updated, across processes if it is a
    ``SyncBatchNorm``, as if it had seen the terms themselves.

    Args:
        norm (_BatchNorm): Batch norm of 2 * heads channels: content, then position.
        q (Tensor): Queries, shape (B, heads, H * W, d).
        k (Tensor): Keys, shape (B, heads, H * W, d).
        height (Tensor): Table of vertical offsets, shape (2H - 1, d).
        width (Tensor): Table of horizontal offsets, shape (2W - 1, d).

    Returns:
        tuple[Tensor, Tensor]: Scale of the content and of the position term, each (heads,).
    """

    def moments() -> Iterator[tuple[Tensor, Tensor]]:
        queries, keys, *tables = at_least_float(*map(_at_least_one_image, (q, k)), height, width)
        yield content_moments(queries, keys)
        yield position_moments(queries, *tables)

    content, position = _term_scales(norm, moments, q)
    return content, position


def flattened_scales(
    norm: _BatchNorm, q: Tensor, k: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`similarity_scales` of the three terms of flattened positions.

    Args:
        norm (_BatchNorm): Batch norm of 3 * heads channels: content, query's position, key's.
        q (Tensor): Queries, shape (B, heads, N, d).
        k (Tensor): Keys, shape (B, heads, N, d).
        table (Tensor): Table of flattened offsets, shape (2d + dv, 2N - 1).

    Returns:
        tuple[Tensor, Tensor, Tensor]: Scale of each term, (heads,).
    """

    def moments() -> Iterator[tuple[Tensor, Tensor]]:
        queries, keys, positions = at_least_float(*map(_at_least_one_image, (q, k)), table.t())
        of_query, of_key, _ = positions.tensor_split((q.shape[-1], 2 * q.shape[-1]), dim=1)
        yield content_moments(queries, keys)
        yield flattened_moments(queries, of_query)
        yield flattened_moments(keys, of_key)

    content, of_queries, of_keys = _term_scales(norm, moments, q)
    return content, of_queries, of_keys


def _term_scales(
    norm: _BatchNorm, moments: Callable[[], Iterator[tuple[Tensor, Tensor]]], q: Tensor
) -> tuple[Tensor, ...]:
    """Scales (heads,) of the terms whose means and variances (heads,) ``moments`` yields."""

    def all_moments() -> tuple[Tensor, Tensor]:
        means, variances = zip(*moments(), strict=True)
        return torch.cat(means), torch.cat(variances)

    batch, heads, positions, _ = q.shape
    with without_autocast(q.device):
        return batch_norm_scale(norm, all_moments, count=batch * positions**2).split(heads)


def _at_least_one_image(x: Tensor) -> Tensor:
    """An empty batch (0, heads, N, d) as one image of zeros, any other batch unchanged.

    The image has no weight in the statistics (its count is 0), but finite moments, and it connects
    them with the graph: in the backward pass, too, all processes of a SyncBN have to meet.
    """
    return x if x.shape[0] else x.sum(0, keepdim=True)


def content_moments(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``q_i . k_j`` over batch, i and j, per head.

    Over i and j the product splits into four uncorrelated parts: mean with mean, mean with
    deviation (twice) and deviation with deviation.

    Args:
        q (Tensor): Shape (B, heads, N, d).
        k (Tensor): Shape (B, heads, N, d).

    Returns:
        tuple[Tensor, Tensor]: Mean and (biased) variance, each (heads,).
    """
    (q_mean, q_cov), (k_mean, k_cov) = _mean_and_covariance(q), _mean_and_covariance(k)
    image_mean = (q_mean * k_mean).sum(-1)
    image_var = (
        torch.einsum('bnd,bnde,bne->bn', k_mean, q_cov, k_mean)
        + torch.einsum('bnd,bnde,bne->bn', q_mean, k_cov, q_mean)
        + (q_cov * k_cov).sum((-1, -2))
    )
    return image_mean.mean(0), image_var.mean(0) + image_mean.var(0, unbiased=False)


def position_moments(q: Tensor, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``row[i, h_j] + col[i, w_j]`` over batch, i and j, per head.

    For one query, row and col vary independently over the keys.

    Args:
        q (Tensor): Shape (B, heads, H * W, d).
        height (Tensor): Shape (2H - 1, d).
        width (Tensor): Shape (2W - 1, d).

    Returns:
        tuple[Tensor, Tensor]: Mean and (biased) variance, each (heads,).
    """
    row_mean, row_cov = _mean_and_covariance(pairwise(height))  # (H, d), (H, d, d)
    col_mean, col_cov = _mean_and_covariance(pairwise(width))
    q = q.unflatten(2, (row_mean.shape[0], col_mean.shape[0]))  # (B, heads, H, W, d)
    batch, _, rows, cols, _ = q.shape

    query_mean = torch.einsum('bnhwd,hd->nbhw', q, row_mean)
    query_mean = query_mean + torch.einsum('bnhwd,wd->nbhw', q, col_mean)
    query_mean = query_mean.flatten(1)
    # E_i[q_i^T cov(h_i) q_i], the second moments of the queries of one row (column) first.
    by_row = torch.einsum('bnhwd,bnhwe->nhde', q, q)
    by_col = torch.einsum('bnhwd,bnhwe->nwde', q, q)
    query_var = (by_row * row_cov).sum((1, 2, 3)) + (by_col * col_cov).sum((1, 2, 3))
    query_var = query_var / (batch * rows * cols)
    return query_mean.mean(1), query_var + query_mean.var(1, unbiased=False)


def flattened_moments(x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``x_a . table[a - b + N - 1]`` over batch, a and b, per head.

    Args:
        x (Tensor): Queries or keys, shape (B, heads, N, d).
        table (Tensor): Their embeddings, shape (2N - 1, d).

    Returns:
        tuple[Tensor, Tensor]: Mean and (biased) variance, each (heads,).
    """
    # Over b, position a meets a window of the table: entries a to a + N - 1.
    mean, cov = _mean_and_covariance_of_windows(table)
    means = torch.einsum('bnad,ad->nba', x, mean).flatten(1)
    variance = torch.einsum('bnad,ade->bnae', x, cov).mul(x).sum((0, 2, 3)) / means.shape[1]
    return means.mean(1), variance + means.var(1, unbiased=False)


def batch_norm_scale(
    norm: _BatchNorm, moments: Callable[[], tuple[Tensor, Tensor]], count: int
) -> Tensor:
    """The factor that ``norm`` puts on each channel, from moments instead of values.

    Args:
        norm (_BatchNorm): Batch norm of C channels.
        moments (Callable): Gives mean and biased variance, each (C,); asked only where the
            batch norm uses the statistics of the batch.
        count (int): Number of values a channel behind the moments.

    Returns:
        Tensor: Shape (C,).
    """
    if norm.training or norm.running_var is None:
        mean, var = moments()
        if norm.training and isinstance(norm, torch.nn.SyncBatchNorm):
            mean, var, count = _reduce(mean, var, count, norm.process_group)
        if norm.training and norm.track_running_stats:
            _update_running_statistics(norm, mean.detach(), var.detach(), count)
    else:
        var = norm.running_var
    scale = (var + norm.eps).rsqrt()
    if norm.affine:
        # The softmax cancels the shift. Its gradient is zero, but has to exist: without one
        # DistributedDataParallel takes the bias for an unused parameter.
        scale = norm.weight * scale + 0 * norm.bias
    return scale


def _mean_and_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (..., d) and covariance (..., d, d) of the second last dimension of (..., N, d)."""
    mean = x.mean(-2)
    deviation = x - mean.unsqueeze(-2)
    return mean, deviation.transpose(-1, -2) @ deviation / x.shape[-2]


def _mean_and_covariance_of_windows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Those of each N successive ones of 2N - 1 vectors (2N - 1, d): (N, d) and (N, d, d)."""
    size = (x.shape[0] + 1) // 2
    mean = x.mean(0)
    deviation = x - mean
    products = deviation.unsqueeze(-1) * deviation.unsqueeze(-2)
    sums = torch.cat((deviation.unsqueeze(-1), products), dim=-1).cumsum(0)
    sums = torch.cat((torch.zeros_like(sums[:1]), sums))
    window_mean, second = ((sums[size:] - sums[:-size]) / size).tensor_split((1,), dim=-1)
    return mean + window_mean.squeeze(-1), second - window_mean * window_mean.transpose(-1, -2)


def _reduce(mean: Tensor, var: Tensor, count: int, group: Any) -> tuple[Tensor, Tensor, int]:
    """Moments over all processes of a group, differentiable as SyncBatchNorm's are."""
    if not dist.is_initialized() or dist.get_world_size(group) == 1:
        return mean, var, count
    group = dist.group.WORLD if group is None else group
    counted = torch.cat((mean * count, mean.new_tensor([count])))
    sums, total = all_reduce(counted, group=group).split((mean.numel(), 1))
    at_least_one = total.clamp(min=1)
    all_mean = sums / at_least_one
    all_var = all_reduce((var + (mean - all_mean) ** 2) * count, group=group) / at_least_one
    return all_mean, all_var, int(total)


@torch.no_grad()
def _update_running_statistics(norm: Any, mean: Tensor, var: Tensor, count: int) -> None:
    norm.num_batches_tracked += 1
    if not count:  # an empty batch changes nothing else, as in PyTorch's batch norm
        return
    momentum = norm.momentum
    if momentum is None:  # cumulative average
        momentum = 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
    norm.running_var.lerp_(var.to(norm.running_var) * (count / max(count - 1, 1)), momentum)
