"""Exact attention in linear memory, plain PyTorch: a block of queries of one head at a time.

The loops over blocks run inside operators of our own (:mod:`lesa_mmdet.attention.registration`), so
that a compiler sees one operator for the forward and one for the backward pass.
"""

import os
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..precision import at_least_float, without_autocast
from ..registration import register_operator

# One block of similarities in bytes: on a CPU what the caches hold with its gradient, on a GPU
# what a launch is worth.
BLOCK_BYTES = {'cpu': 1 << 23, 'cuda': 1 << 28}
# Queries of a block are a multiple of what a matrix product takes at once.
QUERIES = 16

# Matrix products by oneDNN. PyTorch's own are MKL's, which is half as fast on CPUs not from Intel,
# but faster on Intel's. (PyTorch before 2.13 does not tell whose a CPU is.)
INTEL = 'Intel' in getattr(torch.cpu, 'get_capabilities', dict)().get('cpu_name', '')


def _has_onednn() -> bool:
    available = torch.backends.mkldnn.is_available()
    found = available and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    if available and not found:
        warnings.warn(
            'this PyTorch hides the matrix products of its oneDNN: attention on a CPU may take '
            'twice as long, its results are the same',
            stacklevel=2,
        )
    return found


HAS_ONEDNN = _has_onednn()
ONEDNN = HAS_ONEDNN and not INTEL


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention over blocks of queries; the backward pass computes each block again.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does. Memory besides inputs and
    outputs: a few blocks of similarities. Half precision is computed in float32. Only the
    gradients that are asked for are computed.
    """
    return _attend(q, k, v, row, col)


def _forward(*inputs: Tensor) -> Tensor:
    _keep_freed_blocks()
    out = _empty_output(*inputs)
    with without_autocast(out.device):
        for head in _heads(*inputs, out):
            _forward_of_head(*at_least_float(*head[:5]), *head[5:])
    return out


def _backward(grad_out: Tensor, *inputs_and_needed: Any) -> tuple[Tensor, ...]:
    *inputs, needed = inputs_and_needed
    grads = _empty_gradients(grad_out, *inputs, needed)
    with without_autocast(grad_out.device):
        wanted = (grad if need else None for grad, need in zip(grads, needed, strict=True))
        for head in _heads(grad_out, *inputs, *wanted):
            _backward_of_head(*at_least_float(*head[:6]), *head[6:])
    return grads


def _forward_of_head(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor, out: Tensor
) -> None:
    for block in _blocks(k):
        out[block] = _product(_weights(q[block], k, row[block], col[block]), v)


def _backward_of_head(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor,
    col: Tensor,
    grad_q: Tensor | None,
    grad_k: Tensor | None,
    grad_v: Tensor | None,
    grad_row: Tensor | None,
    grad_col: Tensor | None,
) -> None:
    """Write the gradients of one head, but those that are None."""
    sum_k, sum_v = torch.zeros_like(k).t(), torch.zeros_like(v).t()
    for block in _blocks(k):
        weights = _weights(q[block], k, row[block], col[block])
        if grad_v is not None:
            sum_v = _product(grad_out[block].t(), weights, plus=sum_v)
        grad = _product(grad_out[block], v.t())
        torch._softmax_backward_data(grad, weights, -1, weights.dtype, grad_input=grad)
        if grad_k is not None:
            sum_k = _product(q[block].t(), grad, plus=sum_k)
        if grad_q is not None:
            grad_q[block] = _product(grad, k)
        grad_map = grad.unflatten(-1, (row.shape[-1], col.shape[-1]))
        if grad_row is not None:
            grad_row[block] = grad_map.sum(-1)
        if grad_col is not None:
            grad_col[block] = grad_map.sum(-2)
        del weights, grad, grad_map  # whose memory the next block takes
    if grad_k is not None:
        grad_k.copy_(sum_k.t())
    if grad_v is not None:
        grad_v.copy_(sum_v.t())


def _weights(q: Tensor, k: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Softmax weights (n, H * W) of a block of n queries."""
    weights = _product(q, k.t())
    of_map = weights.unflatten(-1, (row.shape[-1], col.shape[-1]))
    of_map += row[:, :, None]
    of_map += col[:, None, :]
    return torch.softmax(weights, -1, out=weights)


def _product(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """``a @ b`` of two matrices, plus a third one."""
    if ONEDNN and a.device.type == 'cpu' and a.dtype == torch.float32:
        return _onednn_product(a, b, plus)
    return a @ b if plus is None else torch.addmm(plus, a, b)


def _onednn_product(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    linear = torch.ops.mkldnn._linear_pointwise
    if plus is None:
        return linear(a, b.t(), None, 'none', [], '')
    return linear.binary(a, plus, b.t(), None, 'add')


@cache
def _keep_freed_blocks() -> None:
    """Have glibc keep freed blocks for the next ones, instead of returning them to the system.

    More free memory than ``M_TRIM_THRESHOLD`` (see mallopt) at the end of the heap is returned. It
    starts at 128 KiB, less than a block: the pages of every block were faulted in again, and a pass
    took up to 1.4 times as long. When an allocation of up to 32 MiB that glibc has mapped for
    itself is freed, glibc raises the threshold to twice its size; that happens here, to 62 MiB. It
    holds for the whole process and all that it allocates. The tensor is never written, so that it
    takes no memory. ``LESA_KEEP_FREED_BLOCKS=0`` in the environment leaves the threshold alone.
    """
    if os.environ.get('LESA_KEEP_FREED_BLOCKS') != '0':
        torch.empty(31 << 20, dtype=torch.uint8)


def _heads(first: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Views (N, d) of tensors (B, heads, N, d), head by head; of None, None."""
    tensors = (first, *others)
    batch, heads = first.shape[:2]
    for image in range(batch):
        yield from zip(
            *([None] * heads if x is None else x[image].unbind() for x in tensors), strict=True
        )


def _blocks(k: Tensor) -> Iterator[slice]:
    """Blocks of queries for keys (H * W, d)."""
    positions, size = k.shape[0], _block_size(k)
    return (slice(start, start + size) for start in range(0, positions, size))


def _block_size(k: Tensor) -> int:
    row_bytes = k.shape[0] * k.element_size()
    units = BLOCK_BYTES.get(k.device.type, BLOCK_BYTES['cpu']) // (QUERIES * row_bytes)
    return max(1, units) * QUERIES


def _empty_output(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    # In the memory order of the values: those of a map may lie channel by channel.
    return torch.empty_like(v)


def _empty_gradients(grad_out: Tensor, *inputs_and_needed: Any) -> tuple[Tensor, ...]:
    *inputs, needed = inputs_and_needed
    return tuple(
        torch.empty_like(x) if need else x.new_empty(0)
        for x, need in zip(inputs, needed, strict=True)
    )


_attend = register_operator(
    'chunked',
    'attend_chunked',
    'Tensor q, Tensor k, Tensor v, Tensor row, Tensor col',
    forward=_forward,
    backward=_backward,
    empty_outputs=_empty_output,
    empty_gradients=_empty_gradients,
)
