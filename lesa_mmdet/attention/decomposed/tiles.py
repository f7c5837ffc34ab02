"""What the Triton kernels read and compute of blocks of queries and tiles of keys.

A tile is ROWS x COLS positions of the map, N = ROWS * COLS keys, so its position logits need ROWS
numbers of ``row`` and COLS of ``col`` for each of M queries: its *lines*. In 16 bits, matrix units
lay them out over the keys: ``q . k`` is added to the product of (M, 2 * LINES) lines and a one-hot
matrix (2 * LINES, N). Float32 adds them (LINES is 0): without matrix units a sum is cheaper
than a product.

d and dv are the channels of a head, D and DV the same padded to powers of two. HEIGHT_UNIT and
WIDTH_UNIT divide the height and width of the map, which tells the compiler how wide it can read.
EVEN says that blocks and tiles fill the map, and channels their padding: nothing is masked.

A logit of -inf has no weight, and a query that has no other logits has no output (NaN), as in the
definition. In a product with a one-hot matrix, -inf would meet zeros and give NaN. A number stands
for it there that is so low that no sum with it has a weight. Float16's lowest is -2^22: in float16,
a query with no logit above -2^21 (-2.1e6) has no output, and a ``q . k`` above 2^21 gives -inf a
weight.
"""

import triton
import triton.language as tl

from ..support import INTERPRETED

ON_CPU = tl.constexpr(INTERPRETED)


@triton.jit
def multiple(x, UNIT: tl.constexpr):
    """A number that UNIT divides, written so that the compiler sees it."""
    return x // UNIT * UNIT


@triton.jit
def _pointers(x, strides, positions, channels):
    """Pointers into this program's image and head of (B, heads, H * W, channels)."""
    x += tl.program_id(2).to(tl.int64) * strides[0] + tl.program_id(1).to(tl.int64) * strides[1]
    return x + positions * strides[2] + channels * strides[3]


@triton.jit
def load(x, strides, positions, channels, mask, COUNT: tl.constexpr, EVEN: tl.constexpr):
    """A block of (B, heads, H * W, COUNT)."""
    pointers = _pointers(x, strides, positions, channels)
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask & (channels < COUNT), other=0.0)


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """Float32 numbers in another type, to the nearest."""
    if ON_CPU and dtype == tl.bfloat16:  # Triton's interpreter cuts off what a GPU rounds
        bits = x.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
        x = tl.where(x == x, nearest.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def store(x, strides, positions, channels, mask, COUNT: tl.constexpr, block):
    """A block in float32 into (B, heads, H * W, COUNT)."""
    block = rounded(block, x.dtype.element_ty)
    tl.store(_pointers(x, strides, positions, channels), block, mask & (channels < COUNT))


@triton.jit
def head(x, size):
    """Pointer to this program's image and head of contiguous (B, heads, size)."""
    return x + (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * size


@triton.jit
def load_of_queries(x, query, size, EVEN: tl.constexpr, other: tl.constexpr):
    """A number for each query of a block of contiguous (B, heads, H * W)."""
    pointers = head(x, size) + query
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, query < size, other=other)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    if ON_CPU and a.dtype == tl.bfloat16:  # Triton's interpreter multiplies its bits
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def tile(h, w, height, width, ROWS: tl.constexpr, COLS: tl.constexpr):
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
def lowest(dtype: tl.constexpr):
    """A number below every logit but those in which `_finite` has replaced a -inf."""
    return -(2.0**21) if dtype == tl.float16 else -(2.0**120)


@triton.jit
def _unit(dtype: tl.constexpr):
    """What `_finite` divides by: no float16 itself is low enough to stand for -inf."""
    return 64.0 if dtype == tl.float16 else 1.0


@triton.jit
def _finite(lines):
    """Lines divided by `_unit`; -inf becomes a number so low that it has no weight."""
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
def starts(x, query, size, length, EVEN: tl.constexpr):
    """(M, 1): pointers to the logits of queries in contiguous (B, heads, size, length)."""
    at = query if EVEN else tl.minimum(query, size - 1)
    return head(x, size * length) + at[:, None] * length


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
def position_logits(
    row, col, h, w, height, width,
    M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr,
    EVEN: tl.constexpr, OF_KEYS: tl.constexpr,
):  # fmt: skip
    """(M, N): position logits of the tile at (h, w), from where those of the queries start.

    OF_KEYS: transposed, (N, M).
    """
    if LINES:
        lines = _load_lines(row, col, h, w, height, width, ROWS, COLS, LINES, EVEN)
        one_hot = _one_hot(lines.dtype, _unit(lines.dtype), ROWS, COLS, LINES)
        if OF_KEYS:
            return dot(tl.trans(one_hot), tl.trans(lines), None, 'ieee')
        else:
            return dot(lines, one_hot, None, 'ieee')
    else:
        position = _added_lines(row, col, h, w, height, width, M, ROWS, COLS)
        return tl.trans(position) if OF_KEYS else position


@triton.jit
def by_columns(tile, M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """(M, COLS): sums over the rows of a tile of (M, N).

    After a matrix product, a thread has all rows of two columns: threads exchange nothing.
    """
    return tl.sum(tile.reshape(M, ROWS, COLS), 1)


@triton.jit
def by_rows(tile, M: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """(M, ROWS, COLS / 2): sums over pairs of columns, for the same reason not over all."""
    return tl.sum(tile.reshape(M, ROWS, COLS // 2, 2), 3)


@triton.jit
def store_order(sums, M: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr):
    """(M * COLS): sums over a tile's rows, those of a thread side by side."""
    if LINES:
        sums = sums.reshape(M // 16, 2, 8, COLS // 2, 2).permute(0, 2, 3, 1, 4)
    return sums.reshape(M * COLS)


@triton.jit
def own_order(sums, M: tl.constexpr, COLS: tl.constexpr, LINES: tl.constexpr):
    """(M, COLS): what `store_order` has reordered."""
    if LINES:
        sums = sums.reshape(M // 16, 8, COLS // 2, 2, 2).permute(0, 3, 1, 2, 4)
    return sums.reshape(M, COLS)


@triton.jit
def pieces(x, dtype: tl.constexpr):
    """(M, 16): float32 numbers, each in three of 16 bits. `piece_units` are their units."""
    x /= _unit(dtype)
    high = rounded(x, dtype)
    rest = (x - high.to(tl.float32)) * 2.0**11
    middle = rounded(rest, dtype)
    low = rounded((rest - middle.to(tl.float32)) * 2.0**11, dtype)
    line = tl.arange(0, 16)[None, :]
    low_or_none = tl.where(line == 2, low[:, None], 0.0).to(dtype)
    return tl.where(line == 0, high[:, None], tl.where(line == 1, middle[:, None], low_or_none))


@triton.jit
def piece_units(dtype: tl.constexpr, N: tl.constexpr):
    """(16, N): what lays numbers in `pieces` out over N keys, in a product that is exact."""
    line = tl.broadcast_to(tl.arange(0, 16)[:, None], (16, N))
    low_or_none = tl.where(line == 2, 2.0**-22, 0.0)
    unit = tl.where(line == 0, 1.0, tl.where(line == 1, 2.0**-11, low_or_none))
    return (unit * _unit(dtype)).to(dtype)
