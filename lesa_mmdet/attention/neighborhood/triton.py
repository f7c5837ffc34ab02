"""The weighted neighbourhood sum on a GPU: the launches of our own Triton kernels."""

from typing import Any

import torch
import triton
from torch import Tensor

from . import kernels
from .window import Matrix, kernel_size, neighborhood_operator

POSITIONS = 64  # of a tile


def _run_sum(
    x: Tensor, weights: Tensor, mul: Matrix, add: Matrix, dilation: int, transposed: bool
) -> Tensor:
    out = torch.empty_like(x)
    mul, add = _readable(mul), _readable(add)
    heads, (height, width) = weights.shape[1], x.shape[2:]
    x_of_heads, out_of_heads = (y.unflatten(1, (heads, -1)) for y in (x, out))
    with torch.cuda.device_of(x):
        kernels.weighted_sum[_grid(weights)](
            x_of_heads, weights, mul, add, out_of_heads,
            x_of_heads.stride(), weights.stride(), out_of_heads.stride(),
            height, width, dilation, **_constants(x, weights, mul, add, TRANSPOSED=transposed),
        )  # fmt: skip
    return out


def _run_backward_weights(
    grad_out: Tensor, v: Tensor, weights: Tensor, mul: Matrix, add: Matrix, dilation: int
) -> tuple[Tensor, ...]:
    """Gradients of weights, mul and add; empty where there is none."""
    grad_weights = torch.empty_like(weights)
    heads, (height, width) = weights.shape[1], v.shape[2:]
    tiles, _, batch = grid = _grid(weights)
    of_mul, of_add = (_sums_of_tiles(x, batch * tiles) for x in (mul, add))
    grad_of_heads, v_of_heads = (x.unflatten(1, (heads, -1)) for x in (grad_out, v))
    with torch.cuda.device_of(v):
        kernels.backward_weights[grid](
            grad_of_heads, v_of_heads, weights, _readable(mul), grad_weights, of_mul, of_add,
            grad_of_heads.stride(), v_of_heads.stride(), weights.stride(), grad_weights.stride(),
            height, width, dilation, **_constants(v, weights, mul, add),
        )  # fmt: skip
    fixed = (
        v.new_empty(0) if matrix is None or sums is None else sums.sum(0).to(matrix.dtype)
        for matrix, sums in ((mul, of_mul), (add, of_add))
    )
    return grad_weights, *fixed


def _grid(weights: Tensor) -> tuple[int, int, int]:
    batch, heads, _, height, width = weights.shape
    return triton.cdiv(height * width, POSITIONS), heads, batch


def _constants(
    x: Tensor, weights: Tensor, mul: Matrix, add: Matrix, **others: bool
) -> dict[str, Any]:
    """What the kernels are compiled for."""
    d = x.shape[1] // weights.shape[1]
    return dict(
        d=d,
        D=triton.next_power_of_2(d),
        SIZE=kernel_size(weights),
        M=POSITIONS,
        MUL=mul is not None,
        ADD=add is not None,
        **others,
    )


def _readable(matrix: Matrix) -> Matrix:
    return None if matrix is None else matrix.float().contiguous()


def _sums_of_tiles(matrix: Matrix, tiles: int) -> Matrix:
    """Where each tile writes what it adds to a matrix's gradient."""
    return None if matrix is None else matrix.new_empty(tiles, *matrix.shape, dtype=torch.float32)


attend_neighborhood_triton = neighborhood_operator(
    'triton', 'attend_neighborhood_triton', _run_sum, _run_backward_weights
)
