"""Exact attention in linear memory, plain PyTorch: a block of queries of one head at a time.

The loops over blocks run inside operators of our own (:mod:`lesa_mmdet.attention.gradients`), so
that a compiler sees one operator for the forward and one for the backward pass.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..gradients import differentiable_once
from ..precision import at_least_float, without_autocast

# One block of similarities in bytes: on a CPU what the caches hold beside its gradient, on a GPU
# what a launch is worth.
BLOCK_BYTES = {'cpu': 1 << 23, 'cuda': 1 << 28}
# Queries of a block are a multiple of what a matrix product takes at once.
QUERIES = 16

# Matrix products by oneDNN. PyTorch's own are MKL's, which is half as fast on CPUs not from Intel,
# but faster on Intel's. (PyTorch before 2.13 does not tell whose a CPU is.)
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')
INTEL = 'Intel' in getattr(torch.cpu, 'get_capabilities', dict)().get('cpu_name', '')
ONEDNN = HAS_ONEDNN and not INTEL


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention over blocks of queries; the backward pass computes each block again.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does. Memory beside inputs and
    outputs: a few blocks of similarities. Half precision is computed in float32. Only the
    gradients that are asked for are computed.
    """
    return _attend(q, k, v, row, col)


def _forward(*inputs: Tensor) -> Tensor:
    _keep_freed_blocks()
    out = _empty_output(*inputs)
    with without_autocast(out.device):
        for *head, head_out in _heads(*inputs, out):
            _forward_of_head(*at_least_float(*head), head_out)
    return out


def _backward(grad_out: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    *inputs, needed = inputs
    grads = _empty_gradients(grad_out, *inputs, needed)
    with without_autocast(grad_out.device):
        wanted = (grad if need else None for grad, need in zip(grads, needed, strict=True))
        for head in _heads(grad_out, *inputs, *wanted):
            _backward_of_head(*at_least_float(*head[:6]), *head[6:])
    return grads


def _forward_of_head(q, k, v, row, col, out):
    for block in _blocks(k):
        out[block] = _product(_weights(q[block], k, row[block], col[block]), v)


def _backward_of_head(grad_out, q, k, v, row, col, grad_q, grad_k, grad_v, grad_row, grad_col):
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
    """Let glibc keep freed blocks for the next ones.

    It returns what is free at the heap's end to the system beyond twice the largest tensor that
    it had from there and freed, of at most 32 MiB. In a process without large tensors that was
    each block; a pass took up to 1.4 times as long, as the pages of all blocks were faulted in
    again. The tensor here is never written, so that it takes no memory.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _heads(*tensors: Tensor | None) -> Iterator[list[Tensor | None]]:
    """Views (N, d) of tensors (B, heads, N, d), head by head."""
    batch, heads = tensors[0].shape[:2]
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


def _empty_gradients(grad_out: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    *inputs, needed = inputs
    return tuple(
        torch.empty_like(x) if need else x.new_empty(0)
        for x, need in zip(inputs, needed, strict=True)
    )


_attend = differentiable_once(
    'chunked',
    'attend_chunked',
    'Tensor q, Tensor k, Tensor v, Tensor row, Tensor col',
    forward=_forward,
    backward=_backward,
    empty_outputs=_empty_output,
    empty_gradients=_empty_gradients,
)
