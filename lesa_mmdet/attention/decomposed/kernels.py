"""Triton kernels of attention with decomposed positions.

A program owns a block of M queries of one head (or a tile of keys) and goes over all tiles of keys
(or blocks of queries). A tile is ROWS x COLS positions of the map, N = ROWS * COLS keys, so its
position logits need ROWS numbers of ``row`` and COLS of ``col`` for each query: its *lines*. In 16
bits, matrix units lay them out over the keys: (M, 2 * LINES) lines times a one-hot matrix
(2 * LINES, N) is what ``q . k`` is accumulated upon. Float32 adds them (LINES is 0): without
matrix units a sum is cheaper than a product.

d and dv are the channels of a head, D and DV the same padded to powers of two. HEIGHT_UNIT and
WIDTH_UNIT divide the height and width of the map, which tells the compiler how wide it can read.
EVEN says that blocks and tiles fill the map, and channels their padding: nothing is masked.
Exponentials and the saved log-sum-exp are in base 2.

A logit of -inf has no weight, and a query that has no other logits has no output (NaN), as in the
definition. In a product with a one-hot matrix, -inf would meet zeros: there a number takes its
place that is so low that no sum with it has a weight.
"""

import math

import triton
import triton.language as tl

from ..support import INTERPRETED

ON_CPU = tl.constexpr(INTERPRETED)
LOG2E = tl.constexpr(math.log2(math.e))


@triton.jit
def _multiple(x, UNIT: tl.constexpr):
    """A number that UNIT divides, so written that the compiler sees it."""
    return x // UNIT * UNIT


@triton.jit
def _pointers(x, strides, positions, channels):
    """Pointers into this program's image and head of (B, heads, H * W, channels)."""
    x += tl.program_id(2).to(tl.int64) * strides[0] + tl.program_id(1).to(tl.int64) * strides[1]
    return x + positions * strides[2] + channels * strides[3]


@triton.jit
def _load(x, strides, positions, channels, mask, COUNT: tl.constexpr, EVEN: tl.constexpr):
    """A block of (B, heads, H * W, COUNT)."""
    pointers = _pointers(x, strides, positions, channels)
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask & (channels < COUNT), other=0.0)


@triton.jit
def _store(x, strides, positions, channels, mask, COUNT: tl.constexpr, block):
    tl.store(_pointers(x, strides, positions, channels), block, mask & (channels < COUNT))


@triton.jit
def _head(x, size):
    """Pointer to this program's image and head of contiguous (B, heads, size)."""
    return x + (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * size


@triton.jit
def _load_of_queries(x, query, size, EVEN: tl.constexpr, other: tl.constexpr):
    """A number for each query of a block of contiguous (B, heads, H * W)."""
    pointers = _head(x, size) + query
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, query < size, other=other)


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    if ON_CPU and a.dtype == tl.bfloat16:  # Triton's interpreter multiplies its bits
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def _tile(h, w, height, width, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Positions of the N keys of a tile whose first is (h, w), and which are on the map."""
    key = tl.arange(0, ROWS * COLS)
    key_h, key_w = h + key // COLS, w + key % COLS
    return key_h * width + key_w, (key_h < height) & (key_w < width)


@triton.jit
def _one_hot(
    dtype: tl.constexpr, HOT: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """(2 * LINES, N): HOT where a line is that of a key's row or of its column, else zero."""
    line, key = tl.arange(0, 2 * LINES)[:, None], tl.arange(0, ROWS * COLS)[None, :]
    hot = (line == key // COLS) | (line - LINES == key % COLS)
    return tl.where(hot, HOT, 0.0).to(dtype)


@triton.jit
def _lowest(dtype: tl.constexpr):
    """A logit above those with a `_finite` -inf, and below all others."""
    return -(2.0**21) if dtype == tl.float16 else -(2.0**120)


@triton.jit
def _unit(dtype: tl.constexpr):
    """What `_finite` divides by: float16 has no number so low that no other is."""
    return 64.0 if dtype == tl.float16 else 1.0


@triton.jit
def _finite(lines):
    """Lines divided by `_unit`, with a number so low in place of -inf that it has no weight."""
    HALF: tl.constexpr = lines.dtype == tl.float16
    if ON_CPU:
        wide = lines.to(tl.float32) / _unit(lines.dtype)
        lowest = -65504.0 if HALF else -(2.0**126)
        return tl.where(wide == float('-inf'), lowest, wide).to(lines.dtype)
    elif HALF:
        return tl.inline_asm_elementwise(
            '{ .reg .b32 x, y; mov.b32 y, 0x24002400; mul.rn.f16x2 x, $1, y; '
            'mov.b32 y, 0xfbfffbff; max.NaN.f16x2 $0, x, y; }',
            '=r,r', [lines], lines.dtype, is_pure=True, pack=2,
        )  # fmt: skip
    else:
        return tl.inline_asm_elementwise(
            '{ .reg .b32 y; mov.b32 y, 0xfe80fe80; max.NaN.bf16x2 $0, $1, y; }',
            '=r,r', [lines], lines.dtype, is_pure=True, pack=2,
        )  # fmt: skip


@triton.jit
def _starts(x, query, size, length, EVEN: tl.constexpr):
    """(M, 1): pointers to the logits of queries in contiguous (B, heads, size, length)."""
    at = query if EVEN else tl.minimum(query, size - 1)
    return _head(x, size * length) + at[:, None] * length


@triton.jit
def _load_lines(
    row, col, h, w, height, width,
    ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """(M, 2 * LINES): row logits of the tile at (h, w) and -inf, its column logits and -inf."""
    line = tl.arange(0, 2 * LINES)[None, :]
    of_row = line < LINES
    rows, cols = line, line - LINES
    pointers = tl.where(of_row, row + (h + rows), col + (w + cols))
    if EVEN and ROWS == LINES and COLS == LINES:
        return _finite(tl.load(pointers))
    else:
        on_row = (rows < ROWS) & (h + rows < height)
        on_col = (cols < COLS) & (w + cols < width)
        mask = tl.where(of_row, on_row, on_col)
        return _finite(tl.load(pointers, mask, other=float('-inf')))


@triton.jit
def _added_lines(
    row, col, h, w, height, width, M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):  # fmt: skip
    """(M, N): position logits of the tile at (h, w), in float32 without matrix units."""
    rows, cols = h + tl.arange(0, ROWS)[None, :], w + tl.arange(0, COLS)[None, :]
    of_row = tl.load(row + rows, rows < height, other=float('-inf'))
    of_col = tl.load(col + cols, cols < width, other=float('-inf'))
    return (of_row[:, :, None] + of_col[:, None, :]).reshape(M, ROWS * COLS)


@triton.jit
def _position(
    row, col, h, w, height, width,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """(M, N): position logits of the tile at (h, w), from where those of the queries start."""
    if LINES:
        lines = _load_lines(row, col, h, w, height, width, ROWS, COLS, LINES, EVEN)
        one_hot = _one_hot(lines.dtype, _unit(lines.dtype), ROWS, COLS, LINES)
        return _dot(lines, one_hot, None, 'ieee')
    else:
        return _added_lines(row, col, h, w, height, width, M, ROWS, COLS)


@triton.jit
def _position_of_keys(
    row, col, h, w, height, width,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """(N, M): the same, transposed."""
    if LINES:
        lines = _load_lines(row, col, h, w, height, width, ROWS, COLS, LINES, EVEN)
        one_hot = _one_hot(lines.dtype, _unit(lines.dtype), ROWS, COLS, LINES)
        return _dot(tl.trans(one_hot), tl.trans(lines), None, 'ieee')
    else:
        return tl.trans(_added_lines(row, col, h, w, height, width, M, ROWS, COLS))


@triton.jit
def _sums(
    grad_logits, dtype: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """Sums over a tile's columns and over its rows: gradients of its row and column logits."""
    if LINES:
        one_hot = _one_hot(dtype, 1.0, ROWS, COLS, LINES)
        sums = _dot(grad_logits.to(dtype), tl.trans(one_hot), None, 'ieee')
        return tl.split(sums.reshape(M, 2, LINES).permute(0, 2, 1))
    else:
        grad_map = grad_logits.reshape(M, ROWS, COLS)
        return tl.sum(grad_map, 2), tl.sum(grad_map, 1)


@triton.jit
def forward(
    q, k, v, row, col, out, lse,
    q_strides, k_strides, v_strides, out_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a block of queries."""
    height, width = _multiple(height, HEIGHT_UNIT), _multiple(width, WIDTH_UNIT)
    size = height * width
    dtype: tl.constexpr = q.dtype.element_ty
    query = tl.program_id(0) * M + tl.arange(0, M)
    query_mask = query < size
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)

    row, col = _starts(row, query, size, height, EVEN), _starts(col, query, size, width, EVEN)
    q_block = _load(q, q_strides, query[:, None], chan[None, :], query_mask[:, None], d, EVEN)
    running_max = tl.full((M,), _lowest(dtype), tl.float32)
    running_sum = tl.zeros((M,), tl.float32)
    acc = tl.zeros((M, DV), tl.float32)
    for w in range(0, width, COLS):
        for h in range(0, height, ROWS):
            key, key_mask = _tile(h, w, height, width, ROWS, COLS)
            k_tile = _load(k, k_strides, key[None, :], chan[:, None], key_mask[None, :], d, EVEN)
            v_tile = _load(v, v_strides, key[:, None], vchan[None, :], key_mask[:, None], dv, EVEN)
            position = _position(row, col, h, w, height, width, M, ROWS, COLS, LINES, EVEN)
            logits = _dot(q_block, k_tile, position, PRECISION)
            new_max = tl.maximum(running_max, tl.max(logits, 1))
            weights = tl.math.exp2(logits * LOG2E - (new_max * LOG2E)[:, None])
            shrink = tl.math.exp2((running_max - new_max) * LOG2E)
            running_sum = running_sum * shrink + tl.sum(weights, 1)
            acc = _dot(weights.to(dtype), v_tile, acc * shrink[:, None], PRECISION)
            running_max = new_max

    acc = acc * (1 / running_sum)[:, None]
    _store(out, out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv, acc)
    lse_block = running_max * LOG2E + tl.math.log2(running_sum)
    lse_block = tl.where(running_sum > 0, lse_block, float('nan'))
    tl.store(_head(lse, size) + query, lse_block, query_mask)


@triton.jit
def backward_queries(
    q, k, v, row, col, out, grad_out, lse, delta, grad_q, grad_row, grad_col,
    q_strides, k_strides, v_strides, out_strides, grad_out_strides, grad_q_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Gradients of q, row and col for a block of queries.

    Also stores delta for the other kernel: a query's gradients with respect to its weights,
    averaged by the weights, which is the product of its output with the output's gradient. SPLIT
    says that maps are wider than a tile, so that the gradient of ``row`` is a sum over tiles.
    """
    height, width = _multiple(height, HEIGHT_UNIT), _multiple(width, WIDTH_UNIT)
    size = height * width
    dtype: tl.constexpr = q.dtype.element_ty
    query = tl.program_id(0) * M + tl.arange(0, M)
    query_mask = query < size
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)
    if LINES:
        rows, cols = tl.arange(0, LINES)[None, :], tl.arange(0, LINES)[None, :]
    else:
        rows, cols = tl.arange(0, ROWS)[None, :], tl.arange(0, COLS)[None, :]
    grad_row_at = _head(grad_row, size * height) + query[:, None] * height + rows
    grad_col_at = _head(grad_col, size * width) + query[:, None] * width + cols

    row, col = _starts(row, query, size, height, EVEN), _starts(col, query, size, width, EVEN)
    q_block = _load(q, q_strides, query[:, None], chan[None, :], query_mask[:, None], d, EVEN)
    out_block = _load(
        out, out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv, EVEN
    )
    grad_out_block = _load(
        grad_out, grad_out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv, EVEN
    )
    delta_block = tl.sum(out_block.to(tl.float32) * grad_out_block.to(tl.float32), 1)
    tl.store(_head(delta, size) + query, delta_block, query_mask)
    lse_block = _load_of_queries(lse, query, size, EVEN, float('inf'))

    grad_q_block = tl.zeros((M, D), tl.float32)
    for w in range(0, width, COLS):
        grad_col_block = tl.zeros((M, LINES if LINES else COLS), tl.float32)
        for h in range(0, height, ROWS):
            key, key_mask = _tile(h, w, height, width, ROWS, COLS)
            k_tile = _load(k, k_strides, key[None, :], chan[:, None], key_mask[None, :], d, EVEN)
            v_tile = _load(v, v_strides, key[None, :], vchan[:, None], key_mask[None, :], dv, EVEN)
            grad_row_mask = query_mask[:, None] & (rows < ROWS) & (h + rows < height)
            if SPLIT:  # what the columns so far have given
                grad_row_block = tl.load(grad_row_at + h, grad_row_mask & (w > 0), other=0.0)
            position = _position(row, col, h, w, height, width, M, ROWS, COLS, LINES, EVEN)
            logits = _dot(q_block, k_tile, position, PRECISION)
            weights = tl.math.exp2(logits * LOG2E - lse_block[:, None])
            grad_weights = _dot(grad_out_block, v_tile, None, PRECISION)
            grad_logits = weights * (grad_weights - delta_block[:, None])
            of_row, of_col = _sums(grad_logits, dtype, M, ROWS, COLS, LINES)
            grad_col_block += of_col
            if SPLIT:
                of_row += grad_row_block
            tl.store(grad_row_at + h, of_row, grad_row_mask)
            grad_q_block = _dot(grad_logits.to(dtype), tl.trans(k_tile), grad_q_block, PRECISION)
        grad_col_mask = query_mask[:, None] & (cols < COLS) & (w + cols < width)
        tl.store(grad_col_at + w, grad_col_block, grad_col_mask)
        if SPLIT:
            tl.debug_barrier()  # whichever thread reads grad_row next sees what was stored
    _store(
        grad_q, grad_q_strides, query[:, None], chan[None, :], query_mask[:, None], d, grad_q_block
    )


@triton.jit
def backward_keys(
    q, k, v, row, col, grad_out, lse, delta, grad_k, grad_v,
    q_strides, k_strides, v_strides, grad_out_strides, grad_k_strides, grad_v_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Gradients of k and v for a tile of keys. All blocks are (keys, queries)."""
    height, width = _multiple(height, HEIGHT_UNIT), _multiple(width, WIDTH_UNIT)
    size = height * width
    dtype: tl.constexpr = q.dtype.element_ty
    across = tl.cdiv(width, COLS)
    h = tl.program_id(0) // across * ROWS
    w = tl.program_id(0) % across * COLS
    key, key_mask = _tile(h, w, height, width, ROWS, COLS)
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)

    k_tile = _load(k, k_strides, key[:, None], chan[None, :], key_mask[:, None], d, EVEN)
    v_tile = _load(v, v_strides, key[:, None], vchan[None, :], key_mask[:, None], dv, EVEN)
    grad_k_tile = tl.zeros((ROWS * COLS, D), tl.float32)
    grad_v_tile = tl.zeros((ROWS * COLS, DV), tl.float32)
    tl.assume(size > 0)  # with a way round the loop, Hopper's products would wait for each other
    for start in range(0, size, M):
        query = start + tl.arange(0, M)
        query_mask = query < size
        lse_block = _load_of_queries(lse, query, size, EVEN, float('inf'))
        delta_block = _load_of_queries(delta, query, size, EVEN, 0.0)
        q_block = _load(q, q_strides, query[None, :], chan[:, None], query_mask[None, :], d, EVEN)
        grad_out_block = _load(
            grad_out, grad_out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv,
            EVEN,
        )  # fmt: skip
        row_at = _starts(row, query, size, height, EVEN)
        col_at = _starts(col, query, size, width, EVEN)
        position = _position_of_keys(
            row_at, col_at, h, w, height, width, M, ROWS, COLS, LINES, EVEN
        )
        logits = _dot(k_tile, q_block, position, PRECISION)
        weights = tl.math.exp2(logits * LOG2E - lse_block[None, :])
        grad_v_tile = _dot(weights.to(dtype), grad_out_block, grad_v_tile, PRECISION)
        grad_weights = _dot(v_tile, tl.trans(grad_out_block), None, PRECISION)
        grad_logits = weights * (grad_weights - delta_block[None, :])
        grad_k_tile = _dot(grad_logits.to(dtype), tl.trans(q_block), grad_k_tile, PRECISION)
    _store(grad_k, grad_k_strides, key[:, None], chan[None, :], key_mask[:, None], d, grad_k_tile)
    _store(grad_v, grad_v_strides, key[:, None], vchan[None, :], key_mask[:, None], dv, grad_v_tile)
