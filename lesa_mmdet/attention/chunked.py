"""Exact attention in linear memory, plain PyTorch: one block of queries at a time."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scratch of one block of similarities in bytes: about what a core's cache holds.
BLOCK_BYTES = 1 << 21


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention over blocks of queries; the backward pass computes each block again.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does. Memory beside inputs and
    outputs: two blocks of similarities.
    """
    return _ChunkedAttention.apply(q, k, v, row, col)


class _ChunkedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v, row, col)
        # Values lie channel by channel, as the maps they are views of.
        out = torch.empty_like(v.transpose(-1, -2), memory_format=torch.contiguous_format)
        out = out.transpose(-1, -2)
        with torch.autocast(q.device.type, enabled=False):
            for head in zip(*_heads(q, k, v, row, col, out)):
                _forward_of_head(*head)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor, ...]:
        inputs = ctx.saved_tensors
        grads = tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in inputs)
        with torch.autocast(grad_out.device.type, enabled=False):
            for head in zip(*_heads(*inputs, grad_out, *grads)):
                _backward_of_head(*head)
        return grads


def _forward_of_head(q, k, v, row, col, out):
    for block in _blocks(k.shape[0], k.element_size()):
        out[block] = _weights(q[block], k, row[block], col[block]) @ v


def _backward_of_head(q, k, v, row, col, grad_out, grad_q, grad_k, grad_v, grad_row, grad_col):
    rows, cols = row.shape[-1], col.shape[-1]
    for block in _blocks(k.shape[0], k.element_size()):
        weights = _weights(q[block], k, row[block], col[block])
        grad_v.addmm_(weights.t(), grad_out[block])
        grad_weights = grad_out[block] @ v.t()
        grad_logits = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_q[block] = grad_logits @ k
        grad_k.addmm_(grad_logits.t(), q[block])
        grad_map = grad_logits.unflatten(-1, (rows, cols))
        torch.sum(grad_map, -1, out=grad_row[block])
        torch.sum(grad_map, -2, out=grad_col[block])


def _weights(q: Tensor, k: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Softmax weights (n, HW) of a block of n queries of one head."""
    logits = (row[:, :, None] + col[:, None, :]).flatten(1)
    return logits.addmm_(q, k.t()).softmax(-1)


def _heads(*tensors: Tensor) -> list[Tensor]:
    """(B * heads, N, d) of tensors (B, heads, N, d), a view wherever one exists."""
    return [x.flatten(0, 1) for x in tensors]


def _blocks(places: int, element_size: int) -> list[slice]:
    size = max(1, BLOCK_BYTES // (places * element_size))
    return [slice(start, start + size) for start in range(0, places, size)]
