"""Exact attention in linear memory on a GPU: the launches of our own Triton kernels."""

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .. import support
from ..registration import register_operator
from . import kernels


class Blocks(NamedTuple):
    """How the work of a kernel is cut.

    Attributes:
        own (int): Queries that a program of ``forward`` and ``backward_queries`` owns, keys that
            one of ``backward_keys`` owns.
        step (int): Keys (queries) that it takes in one step.
        warps (int): Of a program.
        stages (int): Steps that are loaded ahead.
        registers (int, optional): Of a thread at most.
        by_columns (bool): How ``forward`` sums weights.
    """

    own: int
    step: int
    warps: int = 4
    stages: int = 3
    registers: int | None = None
    by_columns: bool = True


def attend_triton(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Attention in our own GPU kernels; the backward pass computes each tile again.

    Takes and returns what :func:`lesa_mmdet.attention.attend` does, which refuses what the kernels
    cannot take (:func:`lesa_mmdet.attention.support.triton_refuses`). Memory besides inputs and
    outputs: two numbers a query, and for the backward pass the gradient of ``col`` in float32.
    """
    return _attend(q, k, v, row.contiguous(), col.contiguous())


def _run_forward(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor
) -> tuple[Tensor, Tensor]:
    """The output and the log-sum-exp of every query's logits (in base 2)."""
    batch, heads, size, _ = q.shape
    height, width = row.shape[-1], col.shape[-1]
    out, lse = _empty_outputs(q, k, v, row, col)
    q, k, v = (_readable(x, height, width) for x in (q, k, v))
    options = launch_options('forward', q, v, height, width)
    with torch.cuda.device_of(q):
        kernels.forward[triton.cdiv(size, options['M']), heads, batch](
            q, k, v, row.contiguous(), col.contiguous(), out, lse,
            q.stride(), k.stride(), v.stride(), out.stride(), height, width, **options,
        )  # fmt: skip
    return out, lse


def _empty_outputs(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor
) -> tuple[Tensor, Tensor]:
    # Channel by channel, as the maps that values are views of: heads merge without a copy.
    out = torch.empty_like(v.transpose(-1, -2), memory_format=torch.contiguous_format)
    return out.transpose(-1, -2), q.new_empty(q.shape[:-1], dtype=torch.float32)


def _run_backward(grad_out: Tensor, *inputs_saved_and_needed: Any) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, row and col: all, whatever is needed."""
    q, k, v, row, col, out, lse, _ = inputs_saved_and_needed
    batch, heads, size, _ = q.shape
    height, width = row.shape[-1], col.shape[-1]
    grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
    q, k, v, grad_out = (_readable(x, height, width) for x in (q, k, v, grad_out))
    row, col = row.contiguous(), col.contiguous()
    options = launch_options('backward_queries', q, v, height, width)
    grad_row, grad_col, delta = (torch.empty_like(x) for x in (row, col, lse))
    blocks, across = triton.cdiv(size, options['M']), triton.cdiv(width, options['COLS'])
    sums_of_block = across * options['M'] * options['COLS']
    sums = q.new_empty(batch * heads * blocks * sums_of_block, dtype=torch.float32)
    with torch.cuda.device_of(q):
        kernels.backward_queries[blocks, heads, batch](
            q, k, v, row, col, out, grad_out, lse, delta, grad_q, grad_row, grad_col, sums,
            q.stride(), k.stride(), v.stride(), out.stride(), grad_out.stride(), grad_q.stride(),
            height, width, **options,
        )  # fmt: skip
        options = launch_options('backward_keys', q, v, height, width)
        tiles = triton.cdiv(height, options['ROWS']) * triton.cdiv(width, options['COLS'])
        kernels.backward_keys[tiles, heads, batch](
            q, k, v, row, col, grad_out, lse, delta, grad_k, grad_v,
            q.stride(), k.stride(), v.stride(), grad_out.stride(), grad_k.stride(),
            grad_v.stride(), height, width, **options,
        )  # fmt: skip
    return grad_q, grad_k, grad_v, grad_row, grad_col


def _empty_gradients(grad_out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    q, k, v, row, col, *_ = inputs
    logits = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (row, col))
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), *logits


_attend = register_operator(
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

    Rows of a map begin at multiples of 16 bytes if 8 divides the width. If not, channels are laid
    side by side.
    """
    aligned = width % 8 == 0 and height * width % 16 == 0
    return x if aligned or x.stride(-1) == 1 else x.contiguous()


def launch_options(kernel: str, q: Tensor, v: Tensor, height: int, width: int) -> dict:
    """What a kernel is compiled for."""
    d, dv = q.shape[-1], v.shape[-1]
    D, DV = _padded(d), _padded(dv)
    half = q.element_size() == 2
    blocks = block_sizes(kernel, half, D + DV, _compute_capability(q.device))
    if kernel == 'backward_keys':
        queries, keys = blocks.step, blocks.own
    else:
        queries, keys = blocks.own, blocks.step
    rows, cols = _tile_shape(keys, height, width, half)
    even = not (height % rows or width % cols or height * width % queries or D - d or DV - dv)
    options = dict(BY_COLUMNS=blocks.by_columns) if kernel == 'forward' else {}
    return dict(
        d=d,
        dv=dv,
        D=D,
        DV=DV,
        HEIGHT_UNIT=math.gcd(height, 16),
        WIDTH_UNIT=math.gcd(width, 16),
        PRECISION='tf32' if support.allows_tf32() else 'ieee',
        M=queries,
        ROWS=rows,
        COLS=cols,
        LINES=max(8, rows, cols) if half else 0,
        EVEN=even,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
        maxnreg=blocks.registers,
        **options,
    )


def block_sizes(kernel: str, half: bool, channels: int, capability: tuple[int, int]) -> Blocks:
    """How the work of a kernel is cut: as large as the registers of a thread allow.

    Args:
        kernel (str): 'forward', 'backward_queries' or 'backward_keys'.
        half (bool): Whether in 16 bits. Float32 products run on the plain arithmetic units, which
            take all operands from registers.
        channels (int): Of a query and a value, padded.
        capability (tuple[int, int]): Compute capability of the GPU.
    """
    if not half:
        return Blocks(32, 32 if channels <= 96 else 16)
    table = {9: WITH_WGMMA, 10: WITH_TCGEN05}.get(capability[0], WITH_MMA)
    return next(blocks for widest, blocks in table[kernel].items() if channels <= widest)


# By kernel, then by the widest channels that they are for. The matrix units of Hopper (9.0) take
# operands from shared memory; those of data centers' Blackwell (10.0) take them from there or from
# a memory of their own, which also holds sums; for all others, registers have to hold both.
WITH_WGMMA = {
    'forward': {48: Blocks(64, 128), 256: Blocks(64, 64)},
    'backward_queries': {
        96: Blocks(64, 64, registers=168),  # three programs a multiprocessor
        192: Blocks(64, 64),
        256: Blocks(64, 32),
    },
    'backward_keys': {192: Blocks(64, 64), 256: Blocks(64, 32)},
}
WITH_MMA = {
    'forward': {96: Blocks(64, 64, stages=2), 256: Blocks(64, 64, stages=2, by_columns=False)},
    'backward_queries': {
        48: Blocks(64, 64),
        192: Blocks(64, 64, stages=2),
        256: Blocks(32, 64, stages=2),
    },
    'backward_keys': {
        96: Blocks(64, 64),
        192: Blocks(64, 32, stages=2),
        256: Blocks(64, 64, warps=8, stages=2),
    },
}
WITH_TCGEN05 = {
    'forward': WITH_MMA['forward'],
    'backward_queries': {
        48: Blocks(64, 64),
        96: Blocks(64, 64, stages=2),
        192: Blocks(128, 64, warps=8, stages=2),
        256: Blocks(64, 32, stages=2),  # these units have no products of 32 queries
    },
    'backward_keys': {96: Blocks(64, 64), 256: Blocks(64, 64, stages=2)},
}


def _tile_shape(keys: int, height: int, width: int, half: bool) -> tuple[int, int]:
    """Rows and columns of a tile of so many keys.

    In 16 bits as many rows as columns or twice as many, which fills the matrix products of lines;
    in float32 what needs the fewest tiles, then 16 columns.
    """
    shapes = [(keys // cols, cols) for cols in ((8,) if half else (16, 8, 32)) if cols <= keys]
    return min(shapes, key=lambda s: triton.cdiv(height, s[0]) * triton.cdiv(width, s[1]))


def _padded(channels: int) -> int:
    """Channels as matrix units take them: a power of two, 16 or more."""
    return max(16, triton.next_power_of_2(channels))


def _compute_capability(device: torch.device) -> tuple[int, int]:
    if support.INTERPRETED:
        return support.OLDEST_GPU
    return torch.cuda.get_device_capability(device)
