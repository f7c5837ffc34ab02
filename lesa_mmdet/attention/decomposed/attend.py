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

HAS_TRITON = importlib.util.find_spec('triton') and hasattr(torch.library, 'custom_op')
TRITON_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
HAS_SYSCONF = hasattr(os, 'sysconf')  # not on Windows
HOST_MEMORY = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') if HAS_SYSCONF else math.inf


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
        Tensor: Shape (B, heads, H * W, dv).

    Raises:
        ValueError: If the backend is unknown or needs another device, or if shapes, dtypes or
            devices do not belong together.
        MemoryError: If the backend 'reference' needs more memory than the device has.
    """
    _check(q, k, v, row, col)
    backends = available_backends(q.device)
    if backend == 'auto':
        backend = _choose(q, v, backends)
    if backend not in backends:
        problem = 'needs a GPU and the package triton' if backend == 'triton' else 'is unknown'
        raise ValueError(
            f'attention backend {backend!r} {problem}; available: auto, {", ".join(backends)}'
        )
    if backend == 'reference':
        _check_memory(q)
    return backends[backend](q, k, v, row, col)


def available_backends(device: torch.device) -> dict[str, Callable[..., Tensor]]:
    """The backends for tensors on a device, by name."""
    if HAS_TRITON and (device.type == 'cuda' or TRITON_INTERPRETED):
        return {**BACKENDS, 'triton': _attend_triton}
    return BACKENDS


def _attend_triton(*inputs: Tensor) -> Tensor:
    from .triton import attend_triton  # only now: most machines have no triton

    return attend_triton(*inputs)


def _choose(q: Tensor, v: Tensor, backends: dict) -> str:
    if torch.onnx.is_in_onnx_export():
        return 'reference'  # the only one made of ONNX's own operators
    compilable = q.dtype != torch.float64 and max(q.shape[-1], v.shape[-1]) <= 128
    if q.device.type == 'cuda' and 'triton' in backends and compilable:
        return 'triton'
    return 'reference' if q.shape[2] <= DENSE_PLACES else 'chunked'


def _check(*tensors: Tensor) -> None:
    names = ('q', 'k', 'v', 'row', 'col')
    q, k, v, row, col = shapes = [tuple(x.shape) for x in tensors]
    belong = len(q) == 4 and k == q and all(shape[:-1] == q[:-1] for shape in (v, row, col))
    if not belong or q[2] != row[3] * col[3]:
        raise ValueError(
            'q and k have to be (B, heads, H * W, d), v (B, heads, H * W, dv), '
            'row (B, heads, H * W, H) and col (B, heads, H * W, W), '
            f'got {dict(zip(names, shapes))}'
        )
    for what in ('dtype', 'device'):
        values = [getattr(x, what) for x in tensors]
        if len(set(values)) > 1:
            raise ValueError(
                f'q, k, v, row and col have to be of one {what}, '
                f'got {", ".join(f"{name} {value}" for name, value in zip(names, values))}'
            )
    if not tensors[0].is_floating_point():
        raise ValueError(f'q, k, v, row and col have to be floating point, got {tensors[0].dtype}')


def _check_memory(q: Tensor) -> None:
    batch, heads, places, _ = q.shape
    # The softmax takes its input and its output, in float32 or wider.
    needed = 2 * batch * heads * places**2 * max(4, q.element_size())
    there = HOST_MEMORY
    if q.device.type == 'cuda':
        there = torch.cuda.get_device_properties(q.device).total_memory
    if needed > there:
        raise MemoryError(
            f"attention backend 'reference' needs {needed / 2**30:.1f} GiB for {places} places, "
            f'{heads} heads and batch {batch}, more than the {there / 2**30:.1f} GiB of '
            f"{q.device.type}; backend 'chunked' computes the same within a few MiB"
        )
