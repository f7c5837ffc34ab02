"""``attend_neighborhood``: the one entrance to weighted sums over the neighbours of a position."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import RefusedValueError
from ..first_use import passes
from ..support import DTYPES, available, dense_refuses, names_of, select, triton_refuses
from .reference import attend_neighborhood_reference
from .shifted import attend_shifted

# Backends of every device. 'triton' joins them where there is a GPU that it can use.
NEIGHBORHOOD_BACKENDS = {'reference': attend_neighborhood_reference, 'shifted': attend_shifted}


def attend_neighborhood(
    v: Tensor,
    weights: Tensor,
    mul: Tensor | None = None,
    add: Tensor | None = None,
    *,
    dilation: int = 1,
    backend: str = 'auto',
) -> Tensor:
    """Sum the values of each position's k x k neighbours, times weights.

    ``out[c, i] = sum over o of (mul[c, o] * weights[g, o, i] + add[c, o]) * v[c, i + o]`` for all
    offsets o of the window, g being the head of channel c (heads are contiguous). A neighbour
    outside the map has the value zero. Nothing is normalized: the softmax, if wanted, comes before.

    Args:
        v (Tensor): Values, shape (B, C, H, W).
        weights (Tensor): Shape (B, heads, k * k, H, W), k odd, the offsets in row-major order.
        mul (Tensor, optional): Factors of the weights, shape (C, k, k). Defaults to ones.
        add (Tensor, optional): Weights that are the same everywhere, shape (C, k, k). Defaults to
            zeros.
        dilation (int): Distance between neighbours.
        backend (str): A name in :func:`available_neighborhood_backends`, or 'auto': by device.

    Returns:
        Tensor: Shape (B, C, H, W), of the type of ``v``. The tensors may be of different types;
        products and sums are computed in float32 or wider.

    Raises:
        ValueError: If the backend is unknown or cannot take these tensors
            (:mod:`lesa_mmdet.attention.support`), or if shapes, dtypes or devices do not belong
            together.
        MemoryError: If the backend 'reference' needs more memory than the device has.
    """
    inputs = (v, weights, mul, add)
    _check(*inputs, dilation)
    compute = select(
        backend, NEIGHBORHOOD_BACKENDS, _attend_triton, inputs, _refusal, _fallback, _first_use
    )
    return compute(*inputs, dilation)


def available_neighborhood_backends(device: torch.device) -> dict[str, Callable[..., Tensor]]:
    """The backends for tensors on a device, by name."""
    return available(NEIGHBORHOOD_BACKENDS, _attend_triton, device)


def _attend_triton(*inputs: Any) -> Tensor:
    from .triton import attend_neighborhood_triton  # only now: most machines have no triton

    return attend_neighborhood_triton(*inputs)


def _fallback(*_: Tensor | None) -> str:
    return 'shifted'


def _first_use(v: Tensor, weights: Tensor, mul: Tensor | None, add: Tensor | None) -> bool:
    """Whether Triton computes what the definition says of such tensors."""
    size = math.isqrt(weights.shape[2])
    widths = (v.shape[1] // weights.shape[1], size, mul is not None, add is not None)
    dtypes = tuple(None if x is None else x.dtype for x in (v, weights, mul, add))
    return passes('neighborhood', v.device, dtypes, widths, v.shape[2:])


def _refusal(backend: str, v: Tensor, weights: Tensor, *_: Tensor | None) -> str | None:
    """What keeps a backend from an operation."""
    if backend == 'triton':
        of_heads = v.unflatten(1, (weights.shape[1], -1))
        return triton_refuses(of_heads, weights, channels=of_heads.shape[2])
    if backend == 'reference':
        what = f'{weights.shape[2]} neighbours of values {tuple(v.shape)}'
        return dense_refuses(v, v.numel() * weights.shape[2], what)
    return None


def _check(
    v: Tensor, weights: Tensor, mul: Tensor | None, add: Tensor | None, dilation: int
) -> None:
    tensors = dict(v=v, weights=weights, mul=mul, add=add)
    tensors = {name: x for name, x in tensors.items() if x is not None}
    values, windows, *matrices = (tuple(x.shape) for x in tensors.values())
    size = math.isqrt(windows[2]) if len(windows) == 5 else 0
    belong = (
        len(values) == 4
        and size % 2 == 1
        and windows == (values[0], windows[1], size * size, *values[2:])
        and windows[1] > 0
        and values[1] % windows[1] == 0
        and all(matrix == (values[1], size, size) for matrix in matrices)
    )
    if not belong:
        raise RefusedValueError(
            'v has to be (B, C, H, W), weights (B, heads, k * k, H, W) with an odd k and C a '
            'multiple of heads, mul and add (C, k, k), '
            f'got { ({name: tuple(x.shape) for name, x in tensors.items()}) }'
        )
    devices = {name: x.device for name, x in tensors.items()}
    if len(set(devices.values())) > 1:
        raise RefusedValueError(
            f'{", ".join(tensors)} have to be of one device, '
            f'got {", ".join(f"{name} {device}" for name, device in devices.items())}'
        )
    for name, x in tensors.items():
        if x.dtype not in DTYPES:
            raise RefusedValueError(f'{name} has to be {names_of(DTYPES)}, got {x.dtype}')
    if dilation < 1:
        raise RefusedValueError(f'dilation has to be 1 or more, got {dilation}')
