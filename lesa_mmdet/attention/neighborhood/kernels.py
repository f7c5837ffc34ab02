"""Triton kernels of the weighted neighbourhood sum: no neighbourhood is ever laid out in memory.

A program owns M positions of one head, a tile, and goes through the k * k neighbours; D are the
channels of a head, padded to a power of two. Values are read k * k times, but from the caches.
"""

import triton
import triton.language as tl


@triton.jit
def _offset(index, SIZE: tl.constexpr, dilation):
    """Rows and columns from a position to a neighbour."""
    return (index // SIZE - SIZE // 2) * dilation, (index % SIZE - SIZE // 2) * dilation


@triton.jit
def _head(x, strides):
    """This program's image and head of (B, heads, ...)."""
    return (
        x + tl.program_id(2).to(tl.int64) * strides[0] + tl.program_id(1).to(tl.int64) * strides[1]
    )


@triton.jit
def _pointers(x, strides, channel, row, col):
    """Pointers (positions, channels) into a head (d, H, W)."""
    positions = row * strides[3] + col * strides[4]
    return x + positions[:, None] + channel[None, :] * strides[2]


@triton.jit
def weighted_sum(
    x, weights, mul, add, out,
    x_strides, weights_strides, out_strides,
    height, width, dilation,
    d: tl.constexpr, D: tl.constexpr, SIZE: tl.constexpr, M: tl.constexpr,
    MUL: tl.constexpr, ADD: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """The weighted sum of values; TRANSPOSED: from the output's gradient the values'.

    Then a position is a neighbour itself: it collects from those that have it, with their weights.
    """
    position = tl.program_id(0) * M + tl.arange(0, M)
    channel = tl.arange(0, D)
    row, col = position // width, position % width
    x, weights, out = _head(x, x_strides), _head(weights, weights_strides), _head(out, out_strides)
    fixed = (tl.program_id(1) * d + channel) * (SIZE * SIZE)
    real = position < height * width
    acc = tl.zeros((M, D), tl.float32)
    for index in range(SIZE * SIZE):
        rows, cols = _offset(index, SIZE, dilation)
        if TRANSPOSED:
            rows, cols = -rows, -cols
        near_row, near_col = row + rows, col + cols
        inside = real & (near_row >= 0) & (near_row < height) & (near_col >= 0) & (near_col < width)
        own_row, own_col = row, col
        if TRANSPOSED:
            own_row, own_col = near_row, near_col
        at = weights + index * weights_strides[2]
        weight = tl.load(
            at + own_row * weights_strides[3] + own_col * weights_strides[4], inside, other=0.0
        ).to(tl.float32)
        factor = tl.broadcast_to(weight[:, None], (M, D))
        if MUL:
            factor *= tl.load(mul + fixed + index, channel < d, other=0.0)[None, :]
        if ADD:
            factor += tl.load(add + fixed + index, channel < d, other=0.0)[None, :]
        value = tl.load(
            _pointers(x, x_strides, channel, near_row, near_col),
            inside[:, None] & (channel < d)[None, :],
            other=0.0,
        )
        acc += factor * value.to(tl.float32)
    tl.store(
        _pointers(out, out_strides, channel, row, col), acc, real[:, None] & (channel < d)[None, :]
    )


@triton.jit
def backward_weights(
    grad_out, v, weights, mul, grad_weights, grad_mul, grad_add,
    grad_out_strides, v_strides, weights_strides, grad_weights_strides,
    height, width, dilation,
    d: tl.constexpr, D: tl.constexpr, SIZE: tl.constexpr, M: tl.constexpr,
    MUL: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """The weights' gradient for a tile, and what it adds to those of mul and add."""
    position = tl.program_id(0) * M + tl.arange(0, M)
    channel = tl.arange(0, D)
    row, col = position // width, position % width
    v, weights = _head(v, v_strides), _head(weights, weights_strides)
    grad_out = _head(grad_out, grad_out_strides)
    grad_weights = _head(grad_weights, grad_weights_strides)
    fixed = (tl.program_id(1) * d + channel) * (SIZE * SIZE)
    tile = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    partial = tile.to(tl.int64) * (tl.num_programs(1) * d * SIZE * SIZE) + fixed
    real = position < height * width
    mask = real[:, None] & (channel < d)[None, :]
    grad = tl.load(_pointers(grad_out, grad_out_strides, channel, row, col), mask, other=0.0)
    grad = grad.to(tl.float32)
    for index in range(SIZE * SIZE):
        rows, cols = _offset(index, SIZE, dilation)
        near_row, near_col = row + rows, col + cols
        inside = real & (near_row >= 0) & (near_row < height) & (near_col >= 0) & (near_col < width)
        value = tl.load(
            _pointers(v, v_strides, channel, near_row, near_col),
            inside[:, None] & (channel < d)[None, :],
            other=0.0,
        )
        product = grad * value.to(tl.float32)
        at = index * weights_strides[2] + row * weights_strides[3] + col * weights_strides[4]
        if ADD:
            tl.store(grad_add + partial + index, tl.sum(product, 0), channel < d)
        if MUL:
            weight = tl.load(weights + at, real, other=0.0).to(tl.float32)
            of_mul = tl.sum(product * weight[:, None], 0)
            tl.store(grad_mul + partial + index, of_mul, channel < d)
            product *= tl.load(mul + fixed + index, channel < d, other=0.0)[None, :]
        at = (
            index * grad_weights_strides[2]
            + row * grad_weights_strides[3]
            + col * grad_weights_strides[4]
        )
        tl.store(grad_weights + at, tl.sum(product, 1), real)
