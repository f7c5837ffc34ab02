"""``attend``: the one entrance to exact attention with decomposed 2D positions."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import RefusedValueError
from ..first_use import passes
from ..support import DTYPES, available, dense_refuses, names_of, select, triton_refuses
from .chunked import attend_chunked
from .reference import attend_reference

# Backends of every device. 'triton' joins them where there is a GPU that it can use.
BACKENDS = {'reference': attend_reference, 'chunked': attend_chunked}

# Up to this many positions a head the similarity matrix is no larger than queries, keys and values.
DENSE_POSITIONS = 256


def attend(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor, *, backend: str = 'auto'
) -> Tensor:
    """Self-attention over a 2D map: softmax over j of ``q_i . k_j + row[i, h_j] + col[i, w_j]``.

    The dot product is not divided by sqrt(d): a scale, if wanted, is folded into the inputs. All
    tensors have one dtype; the softmax is computed in float32 or wider.

    Args:
        q (Tensor): Queries, shape (B, heads, H * W, d), positions in row-major order.
        k (Tensor): Keys, shape (B, heads, H * W, d).
        v (Tensor): Values, shape (B, heads, H * W, dv).
        row (Tensor): Logits of each query towards each row, shape (B, heads, H * W, H).
        col (Tensor): Logits of each query towards each column, shape (B, heads, H * W, W).
        backend (str): A name in :func:`available_backends`, or 'auto': by device and size.

    Returns:
        Tensor: Shape (B, heads, H * W, dv).

    Raises:
        ValueError: If the backend is unknown or cannot take these tensors
            (:mod:`lesa_mmdet.attention.support`), or if shapes, dtypes or devices do not belong
            together.
        MemoryError: If the backend 'reference' needs more memory than the device has.
    """
    inputs = (q, k, v, row, col)
    _check(*inputs)
    compute = select(backend, BACKENDS, _attend_triton, inputs, _refusal, _fallback, _first_use)
    return compute(*inputs)


def available_backends(device: torch.device) -> dict[str, Callable[..., Tensor]]:
    """The backends for tensors on a device, by name."""
    return available(BACKENDS, _attend_triton, device)


def _attend_triton(*inputs: Tensor) -> Tensor:
    from .triton import attend_triton  # only now: most machines have no triton

    return attend_triton(*inputs)


def _first_use(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> bool:
    """Whether Triton computes what the definition says of such tensors."""
    widths = (q.shape[-1], v.shape[-1])
    return passes('decomposed', q.device, (q.dtype,) * 5, widths, (row.shape[-1], col.shape[-1]))


def _fallback(q: Tensor, *others: Tensor) -> str:
    if isinstance(q.shape[2], torch.SymInt):
        return 'chunked'  # a program that is exported for maps of many sizes
    dense = q.shape[2] <= DENSE_POSITIONS and not _refusal('reference', q, *others)
    return 'reference' if dense else 'chunked'


def _refusal(backend: str, q: Tensor, k: Tensor, v: Tensor, *position: Tensor) -> str | None:
    """What keeps a backend from an operation."""
    if backend == 'triton':
        return triton_refuses(q, k, v, *position, channels=max(q.shape[-1], v.shape[-1]))
    if backend == 'reference':
        batch, heads, positions, _ = q.shape
        what = f'{positions} positions, {heads} heads and batch {batch}'
        return dense_refuses(q, batch * heads * positions**2, what)
    return None


def _check(*tensors: Tensor) -> None:
    names = ('q', 'k', 'v', 'row', 'col')
    q, k, v, row, col = shapes = [tuple(x.shape) for x in tensors]
    belong = len(q) == 4 and k == q and all(shape[:-1] == q[:-1] for shape in (v, row, col))
    if not belong or q[2] != row[3] * col[3]:
        raise RefusedValueError(
            'q and k have to be (B, heads, H * W, d), v (B, heads, H * W, dv), '
            'row (B, heads, H * W, H) and col (B, heads, H * W, W), '
            f'got {dict(zip(names, shapes, strict=True))}'
        )
    for what in ('dtype', 'device'):
        values = [getattr(x, what) for x in tensors]
        if len(set(values)) > 1:
            got = ', '.join(f'{name} {value}' for name, value in zip(names, values, strict=True))
            raise RefusedValueError(f'q, k, v, row and col have to be of one {what}, got {got}')
    if tensors[0].dtype not in DTYPES:
        raise RefusedValueError(
            f'q, k, v, row and col have to be {names_of(DTYPES)}, got {tensors[0].dtype}'
        )
