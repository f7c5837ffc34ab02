"""Exact attention in linear memory on a GPU: our own Triton kernels, forward and backward.

Keys come in tiles of ROWS x COLS places of the map, so that the position logits of a tile need a
piece of ``row`` (ROWS wide) and a piece of ``col`` (COLS wide) only. Their sum is what the matrix
units accumulate ``q . k`` upon. Going down the map first, the piece of ``col`` stays in registers.

M queries make a block, N = ROWS * COLS keys a tile; d and dv are the channels, D and DV the same
padded to powers of two. Exponentials and the saved log-sum-exp are in base 2.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import support
from ..gradients import differentiable_once

INTERPRETED = tl.constexpr(support.INTERPRETED)
LOG2E = tl.constexpr(math.log2(math.e))
# Logit of places outside the map where -inf would meet a zero; the lowest that float16 has.
OUTSIDE = tl.constexpr(-65504.0)


@triton.jit
def _multiple(x, UNIT: tl.constexpr):
    """A number that UNIT divides, so written that the compiler sees it: for wide reads."""
    return x // UNIT * UNIT


@triton.jit
def _tile(h, w, width, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Row, column and place of the N keys of a tile whose first is (h, w)."""
    key = tl.arange(0, ROWS * COLS)
    h += key // COLS
    w += key % COLS
    return h, w, h * width + w


@triton.jit
def _pointers(x, strides, places, channels):
    """Pointers into this program's image and head of (B, heads, H * W, channels)."""
    x += tl.program_id(2).to(tl.int64) * strides[0] + tl.program_id(1).to(tl.int64) * strides[1]
    return x + places * strides[2] + channels * strides[3]


@triton.jit
def _load(x, strides, places, channels, inside, count):
    return tl.load(_pointers(x, strides, places, channels), inside & (channels < count), other=0.0)


@triton.jit
def _store(x, strides, places, channels, inside, count, block):
    tl.store(_pointers(x, strides, places, channels), block, inside & (channels < count))


@triton.jit
def _head(x, stride):
    """Pointer to this program's image and head of contiguous (B, heads, stride)."""
    return x + (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * stride


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    if INTERPRETED and a.dtype == tl.bfloat16:  # Triton's interpreter multiplies its bits
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def _forward(
    q, k, v, row, col, out, lse,
    q_strides, k_strides, v_strides, out_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a block of queries."""
    height, width = _multiple(height, HEIGHT_UNIT), _multiple(width, WIDTH_UNIT)
    size = height * width
    query = tl.program_id(0) * M + tl.arange(0, M)
    real = query < size
    at = tl.minimum(query, size - 1)[:, None]
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)
    rows, cols = tl.arange(0, ROWS)[None, :], tl.arange(0, COLS)[None, :]
    row_at = _head(row, size * height) + at * height + rows
    col_at = _head(col, size * width) + at * width + cols

    q_block = _load(q, q_strides, query[:, None], chan[None, :], real[:, None], d)
    top = tl.full((M,), float('-inf'), tl.float32)
    total = tl.zeros((M,), tl.float32)
    acc = tl.zeros((M, DV), tl.float32)
    for w in range(0, width, COLS):
        col_block = tl.load(col_at + w, w + cols < width, other=float('-inf')).to(tl.float32)
        row_next = tl.load(row_at, rows < height, other=float('-inf'))
        for h in range(0, height, ROWS):
            row_block = row_next.to(tl.float32)  # asked for a step ahead, so nothing waits for it
            row_next = tl.load(row_at + h + ROWS, h + ROWS + rows < height, other=float('-inf'))
            key_h, key_w, key = _tile(h, w, width, ROWS, COLS)
            inside = (key_h < height) & (key_w < width)
            k_tile = _load(k, k_strides, key[None, :], chan[:, None], inside[None, :], d)
            v_tile = _load(v, v_strides, key[:, None], vchan[None, :], inside[:, None], dv)
            position = (row_block[:, :, None] + col_block[:, None, :]).reshape(M, ROWS * COLS)
            logits = _dot(q_block, k_tile, position, PRECISION)
            new_top = tl.maximum(top, tl.max(logits, 1))
            weights = tl.math.exp2(logits * LOG2E - (new_top * LOG2E)[:, None])
            shrink = tl.math.exp2((top - new_top) * LOG2E)
            total = total * shrink + tl.sum(weights, 1)
            acc = _dot(weights.to(v_tile.dtype), v_tile, acc * shrink[:, None], PRECISION)
            top = new_top

    acc = acc * (1 / total)[:, None]
    _store(out, out_strides, query[:, None], vchan[None, :], real[:, None], dv, acc)
    tl.store(_head(lse, size) + query, top * LOG2E + tl.math.log2(total), real)


@triton.jit
def _backward_queries(
    q, k, v, row, col, out, grad_out, lse, delta, grad_q, grad_row, grad_col,
    q_strides, k_strides, v_strides, out_strides, grad_out_strides, grad_q_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Gradients of q, row and col for a block of queries.

    Also stores delta for the other kernel: a query's gradients with respect to its weights,
    averaged by the weights, which is the product of its output with the output's gradient.
    """
    height, width = _multiple(height, HEIGHT_UNIT), _multiple(width, WIDTH_UNIT)
    size = height * width
    query = tl.program_id(0) * M + tl.arange(0, M)
    real = query < size
    at = tl.minimum(query, size - 1)[:, None]
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)
    rows, cols = tl.arange(0, ROWS)[None, :], tl.arange(0, COLS)[None, :]
    row_at, col_at = at * height + rows, at * width + cols
    row, grad_row = _head(row, size * height), _head(grad_row, size * height)
    col, grad_col = _head(col, size * width), _head(grad_col, size * width)

    q_block = _load(q, q_strides, query[:, None], chan[None, :], real[:, None], d)
    out_block = _load(out, out_strides, query[:, None], vchan[None, :], real[:, None], dv)
    grad_out_block = _load(
        grad_out, grad_out_strides, query[:, None], vchan[None, :], real[:, None], dv
    )
    delta_block = tl.sum(out_block.to(tl.float32) * grad_out_block.to(tl.float32), 1)
    tl.store(_head(delta, size) + query, delta_block, real)
    lse_block = tl.load(_head(lse, size) + query, real, other=float('inf'))

    grad_q_block = tl.zeros((M, D), tl.float32)
    for w in range(0, width, COLS):
        col_block = tl.load(col + col_at + w, w + cols < width, other=float('-inf')).to(tl.float32)
        row_next = tl.load(row + row_at, rows < height, other=float('-inf'))
        grad_col_block = tl.zeros((M, COLS), tl.float32)
        for h in range(0, height, ROWS):
            row_block = row_next.to(tl.float32)
            row_next = tl.load(
                row + row_at + h + ROWS, h + ROWS + rows < height, other=float('-inf')
            )
            grad_row_at = grad_row + row_at + h
            grad_row_mask = real[:, None] & (h + rows < height)
            if SPLIT:  # what the columns so far have given
                grad_row_sum = tl.load(grad_row_at, grad_row_mask & (w > 0), other=0.0)
            key_h, key_w, key = _tile(h, w, width, ROWS, COLS)
            inside = (key_h < height) & (key_w < width)
            k_tile = _load(k, k_strides, key[None, :], chan[:, None], inside[None, :], d)
            v_tile = _load(v, v_strides, key[None, :], vchan[:, None], inside[None, :], dv)
            position = (row_block[:, :, None] + col_block[:, None, :]).reshape(M, ROWS * COLS)
            logits = _dot(q_block, k_tile, position, PRECISION)
            weights = tl.math.exp2(logits * LOG2E - lse_block[:, None])
            grad_weights = _dot(grad_out_block, v_tile, None, PRECISION)
            grad_logits = weights * (grad_weights - delta_block[:, None])
            grad_map = grad_logits.reshape(M, ROWS, COLS)
            grad_col_block += tl.sum(grad_map, 1)
            grad_row_block = tl.sum(grad_map, 2)
            if SPLIT:
                grad_row_block += grad_row_sum
            tl.store(grad_row_at, grad_row_block, grad_row_mask)
            grad_q_block = _dot(
                grad_logits.to(k_tile.dtype), tl.trans(k_tile), grad_q_block, PRECISION
            )
        tl.store(grad_col + col_at + w, grad_col_block, real[:, None] & (w + cols < width))
        if SPLIT:
            tl.debug_barrier()  # whichever thread reads grad_row next sees what was stored
    _store(grad_q, grad_q_strides, query[:, None], chan[None, :], real[:, None], d, grad_q_block)


@triton.jit
def _backward_keys(
    q, k, v, row, col, grad_out, lse, delta, grad_k, grad_v,
    q_strides, k_strides, v_strides, grad_out_strides, grad_k_strides, grad_v_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Gradients of k and v for a tile of keys. All blocks are (keys, queries)."""
    height, width = _multiple(height, HEIGHT_UNIT), _multiple(width, WIDTH_UNIT)
    size = height * width
    N: tl.constexpr = ROWS * COLS
    HALF: tl.constexpr = q.dtype.element_ty != tl.float32
    across = tl.cdiv(width, COLS)
    h = tl.program_id(0) // across * ROWS
    w = tl.program_id(0) % across * COLS
    key_h, key_w, key = _tile(h, w, width, ROWS, COLS)
    inside = (key_h < height) & (key_w < width)
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)
    # Matrix units sum over 16 places or more.
    R: tl.constexpr = max(ROWS, 16) if HALF else ROWS
    C: tl.constexpr = max(COLS, 16) if HALF else COLS
    rows, cols = h + tl.arange(0, R), w + tl.arange(0, C)
    row_at = _head(row, size * height) + rows[:, None]
    col_at = _head(col, size * width) + cols[:, None]
    lse, delta = _head(lse, size), _head(delta, size)
    row_mask = (rows < tl.minimum(h + ROWS, height))[:, None]
    col_mask = (cols < tl.minimum(w + COLS, width))[:, None]
    if HALF:
        pick_row = (key_h[:, None] == rows[None, :]).to(tl.float32).to(q.dtype.element_ty)
        pick_col = (key_w[:, None] == cols[None, :]).to(tl.float32).to(q.dtype.element_ty)

    k_tile = _load(k, k_strides, key[:, None], chan[None, :], inside[:, None], d)
    v_tile = _load(v, v_strides, key[:, None], vchan[None, :], inside[:, None], dv)
    grad_k_tile = tl.zeros((N, D), tl.float32)
    grad_v_tile = tl.zeros((N, DV), tl.float32)
    for start in range(0, size, M):
        query = start + tl.arange(0, M)
        real = query < size
        at = tl.minimum(query, size - 1)[None, :]
        row_block = tl.load(row_at + at * height, row_mask, other=OUTSIDE)
        col_block = tl.load(col_at + at * width, col_mask, other=OUTSIDE)
        lse_block = tl.load(lse + query, real, other=float('inf'))
        delta_block = tl.load(delta + query, real, other=0.0)
        q_block = _load(q, q_strides, query[None, :], chan[:, None], real[None, :], d)
        grad_out_block = _load(
            grad_out, grad_out_strides, query[:, None], vchan[None, :], real[:, None], dv
        )
        if HALF:  # matrix units lay row and col out for less than shuffling registers costs
            position = _dot(
                pick_col, col_block, _dot(pick_row, row_block, None, PRECISION), PRECISION
            )
        else:
            position = (row_block[:, None, :] + col_block[None, :, :]).reshape(N, M)
        logits = _dot(k_tile, q_block, position, PRECISION)
        weights = tl.math.exp2(logits * LOG2E - lse_block[None, :])
        grad_v_tile = _dot(weights.to(v_tile.dtype), grad_out_block, grad_v_tile, PRECISION)
        grad_weights = _dot(v_tile, tl.trans(grad_out_block), None, PRECISION)
        grad_logits = weights * (grad_weights - delta_block[None, :])
        grad_k_tile = _dot(grad_logits.to(k_tile.dtype), tl.trans(q_block), grad_k_tile, PRECISION)
    _store(grad_k, grad_k_strides, key[:, None], chan[None, :], inside[:, None], d, grad_k_tile)
    _store(grad_v, grad_v_strides, key[:, None], vchan[None, :], inside[:, None], dv, grad_v_tile)


def attend_triton(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention in our own GPU kernels; the backward pass computes each tile again.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does, which refuses what the kernels
    cannot take (:func:`lesa_mmdet.attention.support.triton_refuses`). Memory beside inputs and
    outputs: two numbers a query, and for the backward pass of maps wider than a tile the gradient
    of ``row`` in float32.
    """
    return _attend(q, k, v, row, col)


def _run_forward(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor
) -> tuple[Tensor, Tensor]:
    """The output and the log-sum-exp of every query's logits (in base 2)."""
    batch, heads, size, _ = q.shape
    height, width = row.shape[-1], col.shape[-1]
    out, lse = _empty_outputs(q, k, v, row, col)
    q, k, v = (_readable(x, height, width) for x in (q, k, v))
    own, step, options = _block_sizes(q, v)
    with torch.cuda.device_of(q):
        _forward[triton.cdiv(size, own), heads, batch](
            q, k, v, row.contiguous(), col.contiguous(), out, lse,
            q.stride(), k.stride(), v.stride(), out.stride(), height, width,
            M=own, **_tile_shape(step, height, width),
            **_constants(q, v, height, width), **options,
        )  # fmt: skip
    return out, lse


def _empty_outputs(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor
) -> tuple[Tensor, Tensor]:
    # Channel by channel, as the maps that values are views of: heads merge without a copy.
    out = torch.empty_like(v.transpose(-1, -2), memory_format=torch.contiguous_format)
    return out.transpose(-1, -2), q.new_empty(q.shape[:-1], dtype=torch.float32)


def _run_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor,
    col: Tensor,
    out: Tensor,
    lse: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, row and col."""
    batch, heads, size, _ = q.shape
    height, width = row.shape[-1], col.shape[-1]
    grads = _empty_gradients(grad_out, q, k, v, row, col, out, lse, needed)
    grad_q, grad_k, grad_v, grad_row, grad_col = grads
    q, k, v, grad_out = (_readable(x, height, width) for x in (q, k, v, grad_out))
    row, col = row.contiguous(), col.contiguous()
    delta = torch.empty_like(lse)
    own, step, options = _block_sizes(q, v)
    options.update(_constants(q, v, height, width))
    with torch.cuda.device_of(q):
        tile = _tile_shape(step, height, width)
        split = width > tile['COLS']
        grad_row_sum = torch.empty_like(grad_row, dtype=torch.float32) if split else grad_row
        _backward_queries[triton.cdiv(size, own), heads, batch](
            q, k, v, row, col, out, grad_out, lse, delta, grad_q, grad_row_sum, grad_col,
            q.stride(), k.stride(), v.stride(), out.stride(), grad_out.stride(), grad_q.stride(),
            height, width, M=own, **tile, SPLIT=split, **options,
        )  # fmt: skip
        tile = _tile_shape(own, height, width)
        tiles = triton.cdiv(height, tile['ROWS']) * triton.cdiv(width, tile['COLS'])
        _backward_keys[tiles, heads, batch](
            q, k, v, row, col, grad_out, lse, delta, grad_k, grad_v,
            q.stride(), k.stride(), v.stride(), grad_out.stride(), grad_k.stride(),
            grad_v.stride(), height, width, M=step, **tile, **options,
        )  # fmt: skip
    return grad_q, grad_k, grad_v, grad_row_sum.to(grad_row.dtype), grad_col


def _empty_gradients(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor,
    col: Tensor,
    out: Tensor,
    lse: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    logits = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (row, col))
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), *logits


_attend = differentiable_once(
    'triton',
    'attend_triton',
    'Tensor q, Tensor k, Tensor v, Tensor row, Tensor col',
    forward=_run_forward,
    backward=_run_backward,
    empty_outputs=_empty_outputs,
    empty_gradients=_empty_gradients,
    saved=1,
)


def _readable(x: Tensor, height: int, width: int) -> Tensor:
    """The tensor itself if 16 bytes of it can be read at once, else a copy for which that holds.

    Rows of a map begin at such places if 8 divides the width. If not, channels are laid side by
    side.
    """
    aligned = width % 8 == 0 and height * width % 16 == 0
    return x if aligned or x.stride(-1) == 1 else x.contiguous()


def _constants(q: Tensor, v: Tensor, height: int, width: int) -> dict:
    """What the kernels are compiled for."""
    d, dv = q.shape[-1], v.shape[-1]
    matmul = torch.backends.cuda.matmul
    if hasattr(
        matmul, 'fp32_precision'
    ):  # PyTorch 2.9: asking the other way may raise from then on
        tf32 = matmul.fp32_precision == 'tf32'
    else:
        tf32 = matmul.allow_tf32
    return dict(
        d=d,
        dv=dv,
        D=_padded(d),
        DV=_padded(dv),
        HEIGHT_UNIT=math.gcd(height, 16),
        WIDTH_UNIT=math.gcd(width, 16),
        PRECISION='tf32' if tf32 else 'ieee',
    )


def _padded(channels: int) -> int:
    """Channels as matrix units take them: a power of two, 16 or more."""
    return max(16, triton.next_power_of_2(channels))


def _block_sizes(q: Tensor, v: Tensor) -> tuple[int, int, dict]:
    """Places that a program owns, places that it takes in one step, and launch options.

    As large as the 255 registers of a thread allow: what Triton compiles for compute capabilities
    8.0 and 9.0 spills nothing, or hardly anything. Float32 products run on the plain arithmetic
    units, which take all operands from registers. Matrix units take them from shared memory from
    9.0 on, which has more than 200 KiB of it: there, wide heads own more places, for each to be
    read less often.
    """
    channels = _padded(q.shape[-1]) + _padded(v.shape[-1])
    memory = _shared_memory(q.device)
    if q.dtype == torch.float32:
        own, step, warps = 32, 32 if channels <= 96 else 16, 4
    elif channels <= 96:
        own, step, warps = 64, 64, 4
    elif memory > 200 * 1024:
        own, step, warps = 128, 64, 8
    else:
        own, step, warps = 64, 32, 4
    place = channels * q.element_size()
    stages = (memory - 16 * 1024 - own * place) // (step * place)
    return own, step, dict(num_warps=warps, num_stages=min(max(stages, 1), 3))


def _shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program can have."""
    if support.INTERPRETED:
        return 0
    index = torch.cuda.current_device() if device.index is None else device.index
    return triton.runtime.driver.active.utils.get_device_properties(index)['max_shared_mem']


def _tile_shape(places: int, height: int, width: int) -> dict:
    """Rows and columns of a tile of so many keys: the fewest tiles, then 16 columns."""
    return min(
        (dict(ROWS=places // cols, COLS=cols) for cols in (16, 8, 32) if cols <= places),
        key=lambda tile: triton.cdiv(height, tile['ROWS']) * triton.cdiv(width, tile['COLS']),
    )
