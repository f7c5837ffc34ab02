"""Exact attention in linear memory, plain PyTorch: a block of queries of all heads at a time.

To PyTorch each loop is one operator, so that a compiler takes it as it is.
"""

import torch
from torch import Tensor

from .precision import at_least_float

# One block of similarities in bytes: on a CPU what fits into the caches, on a GPU what a launch
# is worth.
BLOCK_BYTES = {'cpu': 1 << 22, 'cuda': 1 << 28}
# Queries of a block are a multiple of what a matrix product takes at once.
QUERIES = 16


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention over blocks of queries; the backward pass computes each block again.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does. Memory beside inputs and
    outputs: two blocks of similarities. Half precision is computed in float32.
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
def _forward(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    out = _empty_output(q, k, v, row, col)
    with torch.autocast(q.device.type, enabled=False):
        for *image, image_out in zip(q, k, v, row, col, out):
            _forward_of_image(*at_least_float(*image), image_out)
    return out


@torch.no_grad()
def _backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor
) -> tuple[Tensor, ...]:
    grads = _empty_gradients(grad_out, q, k, v, row, col)
    with torch.autocast(q.device.type, enabled=False):
        for images in zip(grad_out, q, k, v, row, col, *grads):
            inputs, image_grads = images[:6], images[6:]
            _backward_of_image(*at_least_float(*inputs), *image_grads)
    return grads


def _forward_of_image(q, k, v, row, col, out):
    blocks, scratch = _blocks(q)
    for block in blocks:
        weights = _weights(q[:, block], k, row[:, block], col[:, block], scratch)
        out[:, block] = weights @ v


def _backward_of_image(grad_out, q, k, v, row, col, grad_q, grad_k, grad_v, grad_row, grad_col):
    blocks, scratch = _blocks(q)
    more_scratch = torch.empty_like(scratch)
    sum_k = torch.zeros_like(k, memory_format=torch.contiguous_format)
    sum_v = torch.zeros_like(v, memory_format=torch.contiguous_format)
    for block in blocks:
        weights = _weights(q[:, block], k, row[:, block], col[:, block], scratch)
        sum_v.baddbmm_(weights.mT, grad_out[:, block])
        grad = more_scratch[: weights.numel()].view_as(weights)
        torch.bmm(grad_out[:, block], v.mT, out=grad)
        torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype, grad_input=grad)
        grad_q[:, block] = grad @ k
        sum_k.baddbmm_(grad.mT, q[:, block])
        grad_map = grad.unflatten(-1, (row.shape[-1], col.shape[-1]))
        grad_row[:, block] = grad_map.sum(-1)
        grad_col[:, block] = grad_map.sum(-2)
    grad_k.copy_(sum_k)
    grad_v.copy_(sum_v)


def _weights(q: Tensor, k: Tensor, row: Tensor, col: Tensor, scratch: Tensor) -> Tensor:
    """Softmax weights (heads, n, H * W) of a block of n queries, in the scratch."""
    shape = *row.shape, col.shape[-1]
    logits = scratch[: row.numel() * col.shape[-1]].view(shape)
    torch.add(row[..., :, None], col[..., None, :], out=logits)
    logits = logits.flatten(-2).baddbmm_(q, k.mT)
    return torch.softmax(logits, -1, out=logits)


def _blocks(q: Tensor) -> tuple[list[slice], Tensor]:
    """Blocks of the queries (heads, H * W, d) of an image, and scratch for the largest."""
    heads, places, _ = q.shape
    row_bytes = heads * places * q.element_size()
    size = (
        max(1, BLOCK_BYTES.get(q.device.type, BLOCK_BYTES['cpu']) // (QUERIES * row_bytes))
        * QUERIES
    )
    size = min(size, places)
    blocks = [slice(start, start + size) for start in range(0, places, size)]
    return blocks, q.new_empty(heads * size * places)


def _empty_output(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    # In the memory order of the values: those of a map may lie channel by channel.
    return torch.empty_like(v)


def _empty_gradients(grad_out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs)


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
