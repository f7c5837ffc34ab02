"""Exact attention in linear memory, plain PyTorch: a block of queries of one head at a time.

To PyTorch each loop is one operator, so that a compiler takes it as it is.
"""

from collections.abc import Iterator
from typing import Optional

import torch
from torch import Tensor

from ..precision import at_least_float, without_autocast

# One block of similarities in bytes: on a CPU what the caches hold beside queries, keys and
# values, on a GPU what a launch is worth.
BLOCK_BYTES = {'cpu': 1 << 22, 'cuda': 1 << 28}
# Queries of a block are a multiple of what a matrix product takes at once.
QUERIES = 16

# oneDNN's matrix product. PyTorch's own is MKL's, which is half as fast on CPUs not from Intel.
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention over blocks of queries; the backward pass computes each block again.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does. Memory beside inputs and
    outputs: a few blocks of similarities. Half precision is computed in float32.
    """
    return _ChunkedAttention.apply(q, k, v, row, col)


class _ChunkedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return torch.ops.lesa_mmdet.attend_chunked(*inputs)

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor, ...]:
        return _ChunkedAttentionBackward.apply(grad_out, *ctx.saved_tensors)


class _ChunkedAttentionBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.lesa_mmdet.attend_chunked_backward(*inputs)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> None:
        raise RuntimeError(
            "attention backend 'chunked' can be differentiated once; "
            "backend 'reference' any number of times"
        )


@torch.no_grad()
def _forward(*inputs: Tensor) -> Tensor:
    out = _empty_output(*inputs)
    with without_autocast(out.device):
        for *head, head_out in _heads(*inputs, out):
            _forward_of_head(*at_least_float(*head), head_out)
    return out


@torch.no_grad()
def _backward(*inputs: Tensor) -> tuple[Tensor, ...]:
    grads = _empty_gradients(*inputs)
    with without_autocast(grads[0].device):
        for tensors in _heads(*inputs, *grads):
            head, head_grads = tensors[: len(inputs)], tensors[len(inputs) :]
            _backward_of_head(*at_least_float(*head), *head_grads)
    return grads


def _forward_of_head(q, k, v, row, col, out):
    scratch = _scratch(k)
    for block in _blocks(k):
        out[block] = _product(_weights(q[block], k, row[block], col[block], scratch), v)


def _backward_of_head(grad_out, q, k, v, row, col, grad_q, grad_k, grad_v, grad_row, grad_col):
    sum_k, sum_v = torch.zeros_like(k).t(), torch.zeros_like(v).t()
    scratch = _scratch(k)
    for block in _blocks(k):
        weights = _weights(q[block], k, row[block], col[block], scratch)
        sum_v = _product(grad_out[block].t(), weights, plus=sum_v)
        grad = _product(grad_out[block], v.t())
        torch._softmax_backward_data(grad, weights, -1, weights.dtype, grad_input=grad)
        sum_k = _product(q[block].t(), grad, plus=sum_k)
        grad_q[block] = _product(grad, k)
        grad_map = grad.unflatten(-1, (row.shape[-1], col.shape[-1]))
        grad_row[block] = grad_map.sum(-1)
        grad_col[block] = grad_map.sum(-2)
    grad_k.copy_(sum_k.t())
    grad_v.copy_(sum_v.t())


def _weights(q: Tensor, k: Tensor, row: Tensor, col: Tensor, scratch: Tensor) -> Tensor:
    """Softmax weights (n, H * W) of a block of n queries, in the memory of ``scratch``."""
    weights = scratch[: len(q)]
    position = weights.unflatten(-1, (row.shape[-1], col.shape[-1]))
    torch.add(row[:, :, None], col[:, None, :], out=position)
    return torch.softmax(_product(q, k.t(), plus=weights), -1, out=weights)


def _product(a: Tensor, b: Tensor, plus: Optional[Tensor] = None) -> Tensor:
    """``a @ b`` of two matrices, plus a third one."""
    if not (ONEDNN and a.device.type == 'cpu' and a.dtype == torch.float32):
        return a @ b if plus is None else torch.addmm(plus, a, b)
    linear = torch.ops.mkldnn._linear_pointwise
    if plus is None:
        return linear(a, b.t(), None, 'none', [], '')
    return linear.binary(a, plus, b.t(), None, 'add')


def _heads(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views (N, d) of tensors (B, heads, N, d), head by head."""
    for image in zip(*tensors):
        yield from zip(*image)


def _blocks(k: Tensor) -> Iterator[slice]:
    """Blocks of queries for keys (H * W, d)."""
    places, size = k.shape[0], _block_size(k)
    return (slice(start, start + size) for start in range(0, places, size))


def _scratch(k: Tensor) -> Tensor:
    """Memory for a block of similarities. All take the same: new pages cost more than the sums."""
    return k.new_empty(min(_block_size(k), k.shape[0]), k.shape[0])


def _block_size(k: Tensor) -> int:
    row_bytes = k.shape[0] * k.element_size()
    units = BLOCK_BYTES.get(k.device.type, BLOCK_BYTES['cpu']) // (QUERIES * row_bytes)
    return max(1, units) * QUERIES


def _empty_output(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    # In the memory order of the values: those of a map may lie channel by channel.
    return torch.empty_like(v)


def _empty_gradients(grad_out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(torch.empty_like, inputs))


_INPUTS = 'Tensor q, Tensor k, Tensor v, Tensor row, Tensor col'
_library = torch.library.Library('lesa_mmdet', 'FRAGMENT')
_library.define(f'attend_chunked({_INPUTS}) -> Tensor')
_library.define(
    f'attend_chunked_backward(Tensor grad_out, {_INPUTS})'
    ' -> (Tensor, Tensor, Tensor, Tensor, Tensor)'
)
_library.impl('attend_chunked', _forward, 'CompositeExplicitAutograd')
_library.impl('attend_chunked_backward', _backward, 'CompositeExplicitAutograd')
_library.impl('attend_chunked', _empty_output, 'Meta')
_library.impl('attend_chunked_backward', _empty_gradients, 'Meta')
