"""``attend``: the one entrance to exact attention with decomposed 2D positions."""

from torch import Tensor

from .chunked import attend_chunked
from .reference import attend_reference

BACKENDS = {'reference': attend_reference, 'chunked': attend_chunked}

# Up to this many places a head the similarity matrix is no larger than queries, keys and values.
DENSE_PLACES = 256


def attend(
    q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor, *, backend: str = 'auto'
) -> Tensor:
    """Self-attention over a 2D map: softmax over j of ``q_i . k_j + row[i, h_j] + col[i, w_j]``.

    The dot product is not divided by sqrt(d): a scale, if wanted, is folded into the inputs.

    Args:
        q (Tensor): Queries, shape (B, heads, H * W, d), places in row-major order.
        k (Tensor): Keys, shape (B, heads, H * W, d).
        v (Tensor): Values, shape (B, heads, H * W, dv).
        row (Tensor): Logits of each query towards each row, shape (B, heads, H * W, H).
        col (Tensor): Logits of each query towards each column, shape (B, heads, H * W, W).
        backend (str): A name in ``BACKENDS``, or 'auto': by size.

    Returns:
        Tensor: Shape (B, heads, H * W, dv).

    Raises:
        ValueError: If the backend is unknown or the shapes do not belong together.
    """
    _check(q, k, v, row, col)
    if backend == 'auto':
        backend = 'reference' if q.shape[2] <= DENSE_PLACES else 'chunked'
    if backend not in BACKENDS:
        raise ValueError(
            f'attention backend {backend!r} is unknown; available: auto, {", ".join(BACKENDS)}'
        )
    return BACKENDS[backend](q, k, v, row, col)


def _check(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> None:
    shapes = {name: tuple(x.shape) for name, x in zip('qkv', (q, k, v))}
    shapes.update(row=tuple(row.shape), col=tuple(col.shape))
    places = row.shape[-1] * col.shape[-1]
    leading = {shape[:-1] for shape in shapes.values()}
    if len(leading) != 1 or len(q.shape) != 4 or q.shape[2] != places or q.shape != k.shape:
        raise ValueError(
            'q and k have to be (B, heads, H * W, d), v (B, heads, H * W, dv), '
            f'row (B, heads, H * W, H) and col (B, heads, H * W, W), got {shapes}'
        )
