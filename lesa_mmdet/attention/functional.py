"""``attend``: the one entrance to exact attention with decomposed 2D positions."""

import importlib.util
import math
import os
from typing import Callable

import torch
from torch import Tensor

from .chunked import attend_chunked
from .reference import attend_reference

# Backends of every device; 'triton' joins them on a GPU.
BACKENDS = {'reference': attend_reference, 'chunked': attend_chunked}

# Up to this many places a head the similarity matrix is no larger than queries, keys and values.
DENSE_PLACES = 256

HOST_MEMORY = (
    os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') if hasattr(os, 'sysconf') else math.inf
)


def attend(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor, *, backend: str = 'auto'
) -> Tensor:
    """Self-attention over a 2D map: softmax over j of ``q_i . k_j + row[i, h_j] + col[i, w_j]``.

    The dot product is not divided by sqrt(d): a scale, if wanted, is folded into the inputs. All
    tensors have one dtype; the softmax is computed in float32 or wider.

    Args:
        q (Tensor): Queries, shape (B, heads, H * W, d), places in row-major order.
        k (Tensor): Keys, shape (B, heads, H * W, d).
        v (Tensor): Values, shape (B, heads, H * W, dv).
        row (Tensor): Logits of each query towards each row, shape (B, heads, H * W, H).
        col (Tensor): Logits of each query towards each column, shape (B, heads, H * W, W).
        backend (str): A name in :func:`available_backends`, or 'auto': by device and size.

    Returns:
        Tensor: Shape (B, heads, H * W, dv), in the memory order of v.

    Raises:
        ValueError: If the backend is unknown or not available for this device, or shapes, dtypes
            or devices do not belong together.
        MemoryError: If the backend 'reference' needs more memory than the device has.
    """
    _check(q=q, k=k, v=v, row=row, col=col)
    backends = available_backends(q.device)
    if backend == 'auto':
        backend = _choose(q, v, backends)
    if backend not in backends:
        known = 'unknown' if backend != 'triton' else f'not available for tensors on {q.device.type}'
        raise ValueError(
            f'attention backend {backend!r} is {known}; available: auto, {", ".join(backends)}'
            + (' (triton needs a GPU, torch >= 2.4 and the package triton)' * (backend == 'triton'))
        )
    if backend == 'reference':
        _check_memory(q)
    return backends[backend](q, k, v, row, col)
