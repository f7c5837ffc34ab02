"""``attend_neighborhood``: the one entrance to weighted sums over the neighbours of a position."""

import math
from typing import Callable, Optional

import torch
from torch import Tensor

from ..support import dense_refuses
from .reference import attend_neighborhood_reference
from .shifted import attend_shifted

# Backends of every device; 'triton' joins them on a GPU.
NEIGHBORHOOD_BACKENDS = {'reference': attend_neighborhood_reference, 'shifted': attend_shifted}


def attend_neighborhood(
    v: Tensor,
    weights: Tensor,
    mul: Optional[Tensor] = None,
    add: Optional[Tensor] = None,
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
        ValueError: If the backend is unknown or needs another device, or if shapes, dtypes or
            devices do not belong together.
        MemoryError: If the backend 'reference' needs more memory than the device has.
    """
    _check(dict(v=v, weights=weights, mul=mul, add=add), dilation)
    backends = available_neighborhood_backends(v.device)
    if backend == 'auto':
        backend = _choose(v, backends)
    if backend not in backends:
        problem = 'needs a GPU and the package triton' if backend == 'triton' else 'is unknown'
        raise ValueError(
            f'attention backend {backend!r} {problem}; available: auto, {", ".join(backends)}'
        )
    if backend == 'reference':
        _check_memory(v, weights)
    return backends[backend](v, weights, mul, add, dilation)


def available_neighborhood_backends(device: torch.device) -> dict[str, Callable[..., Tensor]]:
    """The backends for tensors on a device, by name."""
    return NEIGHBORHOOD_BACKENDS


def _choose(v: Tensor, backends: dict) -> str:
    if torch.onnx.is_in_onnx_export():
        return 'reference'  # the only one made of ONNX's own operators
    return 'shifted'


def _check(tensors: dict[str, Optional[Tensor]], dilation: int) -> None:
    tensors = {name: x for name, x in tensors.items() if x is not None}
    v, weights, *matrices = (tuple(x.shape) for x in tensors.values())
    size = math.isqrt(weights[2]) if len(weights) == 5 else 0
    belong = (
        len(v) == 4
        and size % 2 == 1
        and weights == (v[0], weights[1], size * size, *v[2:])
        and weights[1] > 0
        and v[1] % weights[1] == 0
        and all(matrix == (v[1], size, size) for matrix in matrices)
    )
    if not belong:
        raise ValueError(
            'v has to be (B, C, H, W), weights (B, heads, k * k, H, W) with an odd k and C a '
            'multiple of heads, mul and add (C, k, k), '
            f'got { ({name: tuple(x.shape) for name, x in tensors.items()}) }'
        )
    devices = {name: x.device for name, x in tensors.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(
            f'{", ".join(tensors)} have to be of one device, '
            f'got {", ".join(f"{name} {device}" for name, device in devices.items())}'
        )
    for name, x in tensors.items():
        if not x.is_floating_point():
            raise ValueError(f'{name} has to be floating point, got {x.dtype}')
    if dilation < 1:
        raise ValueError(f'dilation has to be 1 or more, got {dilation}')


def _check_memory(v: Tensor, weights: Tensor) -> None:
    what = f'{weights.shape[2]} neighbours of values {tuple(v.shape)}'
    refusal = dense_refuses(v, v.numel() * weights.shape[2], what)
    if refusal:
        raise MemoryError(
            f"attention backend 'reference' {refusal}; "
            "backend 'shifted' computes the same within a few MiB"
        )
