"""Triton kernels of attention with decomposed positions.

A program owns a block of M queries of one head (or a tile of keys) and goes over all tiles of keys
(or blocks of queries). Its parts are in `tiles.py`, which also says what the constants mean.
Exponentials and the saved log-sum-exp are in base 2.
"""

import math

import triton
import triton.language as tl

from .tiles import (
    by_columns,
    by_rows,
    dot,
    head,
    load,
    load_of_queries,
    lowest,
    multiple,
    own_order,
    piece_units,
    pieces,
    position_logits,
    rounded,
    starts,
    store,
    store_order,
    tile,
)

LOG2E = tl.constexpr(math.log2(math.e))


@triton.jit
def forward(
    q, k, v, row, col, out, lse,
    q_strides, k_strides, v_strides, out_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr, BY_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a block of queries.

    BY_COLUMNS: weights are summed by the columns of tiles first, which takes fewer instructions
    and more registers.
    """
    height, width = multiple(height, HEIGHT_UNIT), multiple(width, WIDTH_UNIT)
    size = height * width
    dtype: tl.constexpr = q.dtype.element_ty
    query = tl.program_id(0) * M + tl.arange(0, M)
    query_mask = query < size
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)

    row, col = starts(row, query, size, height, EVEN), starts(col, query, size, width, EVEN)
    q_block = load(q, q_strides, query[:, None], chan[None, :], query_mask[:, None], d, EVEN)
    running_max = tl.full((M,), lowest(dtype), tl.float32)
    running_sum = tl.zeros((M, COLS if BY_COLUMNS else 1), tl.float32)
    acc = tl.zeros((M, DV), tl.float32)
    for w in range(0, width, COLS):
        for h in range(0, height, ROWS):
            key, key_mask = tile(h, w, height, width, ROWS, COLS)
            k_tile = load(k, k_strides, key[None, :], chan[:, None], key_mask[None, :], d, EVEN)
            v_tile = load(v, v_strides, key[:, None], vchan[None, :], key_mask[:, None], dv, EVEN)
            position = position_logits(
                row, col, h, w, height, width, M, ROWS, COLS, LINES, EVEN, OF_KEYS=False
            )
            logits = dot(q_block, k_tile, position, PRECISION)
            new_max = tl.maximum(running_max, tl.max(logits, 1))
            weights = tl.math.exp2(logits * LOG2E - (new_max * LOG2E)[:, None])
            shrink = tl.math.exp2((running_max - new_max) * LOG2E)
            running_sum *= shrink[:, None]
            if BY_COLUMNS:
                running_sum += by_columns(weights, M, ROWS, COLS)
            else:
                running_sum += tl.sum(weights, 1)[:, None]
            acc = dot(rounded(weights, dtype), v_tile, acc * shrink[:, None], PRECISION)
            running_max = new_max

    total = tl.sum(running_sum, 1)
    acc = acc * (1 / total)[:, None]
    store(out, out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv, acc)
    lse_block = running_max * LOG2E + tl.math.log2(total)
    lse_block = tl.where(total > 0, lse_block, float('nan'))
    tl.store(head(lse, size) + query, lse_block, query_mask)


@triton.jit
def backward_queries(
    q, k, v, row, col, out, grad_out, lse, delta, grad_q, grad_row, grad_col, sums,
    q_strides, k_strides, v_strides, out_strides, grad_out_strides, grad_q_strides,
    height, width,
    d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    HEIGHT_UNIT: tl.constexpr, WIDTH_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Gradients of q, row and col for a block of queries.

    Also stores delta for the other kernel: a query's gradients with respect to its weights,
    averaged by the weights, which is the product of its output with the output's gradient. Going
    along the rows of the map, sums towards rows are finished tile by tile; those towards columns
    are in ``sums``, a block of (M * COLS) for each program and each tile of a row of tiles.
    """
    height, width = multiple(height, HEIGHT_UNIT), multiple(width, WIDTH_UNIT)
    size = height * width
    dtype: tl.constexpr = q.dtype.element_ty
    query = tl.program_id(0) * M + tl.arange(0, M)
    query_mask = query < size
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)
    rows, cols = tl.arange(0, ROWS)[None, :], tl.arange(0, COLS)[None, :]
    grad_row_at = head(grad_row, size * height) + query[:, None] * height + rows
    grad_col_at = head(grad_col, size * width) + query[:, None] * width + cols
    sums_size = M * tl.cdiv(width, COLS) * COLS
    sums = head(sums, tl.num_programs(0).to(tl.int64) * sums_size)
    sums += tl.program_id(0).to(tl.int64) * sums_size + tl.arange(0, M * COLS)

    row, col = starts(row, query, size, height, EVEN), starts(col, query, size, width, EVEN)
    q_block = load(q, q_strides, query[:, None], chan[None, :], query_mask[:, None], d, EVEN)
    out_block = load(
        out, out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv, EVEN
    )
    grad_out_block = load(
        grad_out, grad_out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv, EVEN
    )
    delta_block = tl.sum(out_block.to(tl.float32) * grad_out_block.to(tl.float32), 1)
    tl.store(head(delta, size) + query, delta_block, query_mask)
    lse_block = load_of_queries(lse, query, size, EVEN, float('inf'))

    if LINES:
        minus_delta, units = pieces(-delta_block, dtype), piece_units(dtype, ROWS * COLS)
    grad_q_block = tl.zeros((M, D), tl.float32)
    for h in range(0, height, ROWS):
        grad_row_block = tl.zeros((M, ROWS, COLS // 2), tl.float32)
        for w in range(0, width, COLS):
            key, key_mask = tile(h, w, height, width, ROWS, COLS)
            k_tile = load(k, k_strides, key[None, :], chan[:, None], key_mask[None, :], d, EVEN)
            v_tile = load(v, v_strides, key[None, :], vchan[:, None], key_mask[None, :], dv, EVEN)
            rows_above = tl.full((M * COLS,), h, tl.int32)
            of_rows_above = tl.load(sums + w * M, rows_above > 0, other=0.0)
            position = position_logits(
                row, col, h, w, height, width, M, ROWS, COLS, LINES, EVEN, OF_KEYS=False
            )
            logits = dot(q_block, k_tile, position, PRECISION)
            weights = tl.math.exp2(logits * LOG2E - lse_block[:, None])
            grad_weights = dot(grad_out_block, v_tile, None, PRECISION)
            if LINES:  # a product is cheaper than 32 subtractions of a thread
                grad_weights = dot(minus_delta, units, grad_weights, PRECISION)
            else:
                grad_weights -= delta_block[:, None]
            grad_logits = weights * grad_weights
            grad_row_block += by_rows(grad_logits, M, ROWS, COLS)
            of_col = store_order(by_columns(grad_logits, M, ROWS, COLS), M, COLS, LINES)
            tl.store(sums + w * M, of_rows_above + of_col)
            grad_q_block = dot(
                rounded(grad_logits, dtype), tl.trans(k_tile), grad_q_block, PRECISION
            )
        grad_row_mask = query_mask[:, None] & (h + rows < height)
        of_row = rounded(tl.sum(grad_row_block, 2), dtype)
        tl.store(grad_row_at + h, of_row, grad_row_mask)
        tl.debug_barrier()  # the thread that reads sums next sees what was stored
    for w in range(0, width, COLS):
        of_col = own_order(tl.load(sums + w * M), M, COLS, LINES)
        grad_col_mask = query_mask[:, None] & (w + cols < width)
        tl.store(grad_col_at + w, rounded(of_col, dtype), grad_col_mask)
    store(
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
    height, width = multiple(height, HEIGHT_UNIT), multiple(width, WIDTH_UNIT)
    size = height * width
    dtype: tl.constexpr = q.dtype.element_ty
    across = tl.cdiv(width, COLS)
    h = tl.program_id(0) // across * ROWS
    w = tl.program_id(0) % across * COLS
    key, key_mask = tile(h, w, height, width, ROWS, COLS)
    chan, vchan = tl.arange(0, D), tl.arange(0, DV)

    k_tile = load(k, k_strides, key[:, None], chan[None, :], key_mask[:, None], d, EVEN)
    v_tile = load(v, v_strides, key[:, None], vchan[None, :], key_mask[:, None], dv, EVEN)
    grad_k_tile = tl.zeros((ROWS * COLS, D), tl.float32)
    grad_v_tile = tl.zeros((ROWS * COLS, DV), tl.float32)
    tl.assume(size > 0)  # if the loop could be skipped, Hopper's products would wait for each other
    for start in range(0, size, M):
        query = start + tl.arange(0, M)
        query_mask = query < size
        lse_block = load_of_queries(lse, query, size, EVEN, float('inf'))
        delta_block = load_of_queries(delta, query, size, EVEN, 0.0)
        q_block = load(q, q_strides, query[None, :], chan[:, None], query_mask[None, :], d, EVEN)
        grad_out_block = load(
            grad_out, grad_out_strides, query[:, None], vchan[None, :], query_mask[:, None], dv,
            EVEN,
        )  # fmt: skip
        row_at = starts(row, query, size, height, EVEN)
        col_at = starts(col, query, size, width, EVEN)
        position = position_logits(
            row_at, col_at, h, w, height, width, M, ROWS, COLS, LINES, EVEN, OF_KEYS=True
        )
        logits = dot(k_tile, q_block, position, PRECISION)
        weights = tl.math.exp2(logits * LOG2E - lse_block[None, :])
        grad_v_tile = dot(rounded(weights, dtype), grad_out_block, grad_v_tile, PRECISION)
        grad_weights = dot(v_tile, tl.trans(grad_out_block), None, PRECISION)
        grad_logits = weights * (grad_weights - delta_block[None, :])
        grad_k_tile = dot(rounded(grad_logits, dtype), tl.trans(q_block), grad_k_tile, PRECISION)
    store(grad_k, grad_k_strides, key[:, None], chan[None, :], key_mask[:, None], d, grad_k_tile)
    store(grad_v, grad_v_strides, key[:, None], vchan[None, :], key_mask[:, None], dv, grad_v_tile)
