"""The weighted neighbourhood sum in linear memory, plain PyTorch: one shifted map at a time.

For each of the k * k offsets, the values there times their weights are added to the output. Memory
besides inputs and outputs: a few blocks of values. Half precision is computed in float32. Compilers
see one operator for each pass, whatever its loops.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import without_autocast
from .window import Matrix, neighborhood_operator, neighbours

# Values of one block in bytes: on a CPU what the caches hold of them and of their output, on a GPU
# what a launch is worth.
BLOCK_BYTES = {'cpu': 1 << 21, 'cuda': 1 << 28}


def _sum(
    x: Tensor, weights: Tensor, mul: Matrix, add: Matrix, dilation: int, transposed: bool
) -> Tensor:
    """The weighted sum of values, or transposed: from the output's gradient the values'."""
    out = torch.empty_like(x)
    x, mul, add, out_of_heads = _split_heads(weights, x, mul, add, out)
    with without_autocast(out.device):
        for block, heads in _blocks(x):
            inputs = _floats(x[block], weights[block], _of(heads, mul), _of(heads, add))
            out_of_heads[block] = _sum_of_block(*inputs, dilation=dilation, transposed=transposed)
    return out


def _sum_of_block(
    x: Tensor, weights: Tensor, mul: Matrix, add: Matrix, dilation: int, transposed: bool
) -> Tensor:
    out = _fixed_sum(x, add, dilation, transposed)
    scratch = torch.empty_like(x)
    for index, here, there in neighbours(weights, dilation):
        source, target = (here, there) if transposed else (there, here)
        value, weight = x[source], weights[:, :, index, None][here]
        if mul is not None:
            value = torch.mul(value, _tap(mul, index), out=_like(value, scratch))
        out[target].addcmul_(value, weight)
    return out


def _fixed_sum(x: Tensor, add: Matrix, dilation: int, transposed: bool) -> Tensor:
    """The part of the weights that is the same everywhere: a depthwise convolution."""
    if add is None:
        return torch.zeros_like(x)
    kernel = add.flip(-2, -1) if transposed else add
    channels, size = x.shape[1] * x.shape[2], add.shape[-1]
    out = F.conv2d(
        x.flatten(1, 2),
        kernel.reshape(channels, 1, size, size),
        padding=size // 2 * dilation,
        dilation=dilation,
        groups=channels,
    )
    return out.reshape(x.shape)


def _weights_gradients(
    grad_out: Tensor, v: Tensor, weights: Tensor, mul: Matrix, add: Matrix, dilation: int
) -> tuple[Tensor, ...]:
    """Gradients of weights, mul and add; empty where there is none."""
    grad_out, v, mul, add = _split_heads(weights, grad_out, v, mul, add)
    grad_weights = torch.empty_like(weights)
    sums = [None if x is None else torch.zeros_like(*_floats(x)) for x in (mul, add)]
    with without_autocast(weights.device):
        for block, heads in _blocks(v):
            inputs = _floats(grad_out[block], v[block], weights[block], _of(heads, mul))
            of_mul, of_add = (_of(heads, total) for total in sums)
            grad_weights[block] = _weights_gradients_of_block(
                *inputs, dilation=dilation, grad_mul=of_mul, grad_add=of_add
            )
    fixed = (
        v.new_empty(0) if total is None else total.flatten(0, 1).to(x.dtype)
        for x, total in zip((mul, add), sums, strict=True)
    )
    return grad_weights, *fixed


def _weights_gradients_of_block(
    grad_out: Tensor,
    v: Tensor,
    weights: Tensor,
    mul: Matrix,
    dilation: int,
    grad_mul: Matrix,
    grad_add: Matrix,
) -> Tensor:
    """The weights' gradient; those of mul and add are added to what the other images gave."""
    grad_weights, scratch = torch.zeros_like(weights), torch.empty_like(v)
    for index, here, there in neighbours(weights, dilation):
        grad, weight = grad_out[here], weights[:, :, index, None][here]
        product = torch.mul(grad, v[there], out=_like(grad, scratch))
        if grad_add is not None:
            _tap(grad_add, index).add_(_over_positions(product))
        if mul is not None and grad_mul is not None:
            _tap(grad_mul, index).add_(_over_positions(product * weight))
            product.mul_(_tap(mul, index))
        grad_weights[:, :, index][here] = product.sum(2)
    return grad_weights


def _split_heads(weights: Tensor, *tensors: Tensor | None) -> list[Any]:
    """Channels as (heads, channels of a head): of maps (B, C, H, W) and of matrices (C, k, k)."""
    heads = weights.shape[1]
    return [x if x is None else x.unflatten(-3, (heads, -1)) for x in tensors]


def _blocks(x: Tensor) -> Iterator[tuple[tuple[slice, slice], slice]]:
    """Blocks of images and heads for maps (B, heads, d, H, W), and the heads alone."""
    batch, heads = x.shape[:2]
    head_bytes = x[0, 0].numel() * max(4, x.element_size()) if x.numel() else 1
    count = max(1, BLOCK_BYTES.get(x.device.type, BLOCK_BYTES['cpu']) // head_bytes)
    for image in range(0, batch, max(1, count // heads)):
        images = slice(image, image + max(1, count // heads))
        for head in range(0, heads, count):
            yield (images, slice(head, head + count)), slice(head, head + count)


def _of(heads: slice, matrix: Matrix) -> Matrix:
    return None if matrix is None else matrix[heads]


def _floats(*tensors: Tensor | None) -> list[Any]:
    """Contiguous tensors of one type, float32 or wider."""
    dtype = torch.float32
    for x in tensors:
        dtype = dtype if x is None else torch.promote_types(dtype, x.dtype)
    return [None if x is None else x.to(dtype).contiguous() for x in tensors]


def _tap(matrix: Tensor, index: int) -> Tensor:
    """An entry of matrices (heads, d, k, k), to be taken with maps (B, heads, d, H, W)."""
    return matrix.flatten(-2)[..., index, None, None]


def _over_positions(product: Tensor) -> Tensor:
    """The sum of (B, heads, d, H, W) over images and positions, (heads, d, 1, 1)."""
    return product.sum((0, -2, -1), keepdim=True)[0]


def _like(x: Tensor, scratch: Tensor) -> Tensor:
    """A part of the scratch memory in the shape of a tensor.

    New memory for each product would cost more than the product: the system clears it first.
    """
    return scratch.flatten()[: x.numel()].view(x.shape)


attend_shifted = neighborhood_operator('shifted', 'attend_shifted', _sum, _weights_gradients)
