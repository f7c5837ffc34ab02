"""What a checkpoint may ask for besides tensors, and what it gets: stand-ins that only hold data.

mmengine saves its log history, ``HistoryBuffer`` objects full of NumPy arrays, and NumPy numbers.
Their own constructors trust a pickle: a dtype with a forged state makes NumPy take the bytes of a
file for pointers. So a file gets none of them. It gets the classes below, which check what they are
given and keep it, and :func:`restore` makes objects of NumPy and mmengine of them afterwards.
"""

import math
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from ..utils.text import shown

_NUMBERS = {'b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16'}
_MAX_DIMENSIONS = 32  # of NumPy's arrays
STATISTICS = ('current', 'max', 'mean', 'min')


class Rejected(ValueError):
    """A checkpoint asks for what is not allowed. The text says what it does: 'it ...'."""


class DType:
    """Stands for ``numpy.dtype``: a plain number."""

    def __init__(self, code: str, *flags: bool) -> None:
        if type(code) is not str or code not in _NUMBERS:
            raise Rejected(
                f'it asks for NumPy data of type {shown(code)!r}, which is no plain number'
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *structure = state
        if order not in ('<', '>', '|') or structure != [None, None, None, -1, -1, 0]:
            raise Rejected(
                f'it asks for NumPy data of type {self.dtype} that is more than a plain number'
            )
        self.dtype = self.dtype.newbyteorder(order)

    def restore(self) -> np.dtype:
        """The dtype of NumPy."""
        return self.dtype


class Array:
    """Stands for ``numpy.ndarray``."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not DType or type(data) is not bytes:
            raise Rejected(f'it asks for a NumPy array of {shown(dtype)} in {shown(data)}')
        if (
            type(shape) is not tuple
            or len(shape) > _MAX_DIMENSIONS
            or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
        ):
            raise Rejected(f'it asks for a NumPy array of shape {shown(shape)}')
        dtype = dtype.restore()
        if math.prod(shape) * dtype.itemsize != len(data):
            raise Rejected(
                f'it asks for a NumPy array of shape {shape} and {dtype} in {len(data)} bytes'
            )
        order = 'F' if fortran is True else 'C'
        self.array = np.frombuffer(data, dtype).reshape(shape, order=order).copy(order)

    def restore(self) -> np.ndarray:
        """The array of NumPy."""
        return self.array


class History:
    """Stands for ``HistoryBuffer``."""

    def __setstate__(self, state: dict) -> None:
        self.values, self.counts = state['_log_history'], state['_count_history']
        self.max_length = state['max_length']

    def restore(self) -> HistoryBuffer:
        """mmengine's log history, with its own statistics and not those of the file."""
        if type(self.values) is not Array or type(self.counts) is not Array:
            raise Rejected('it asks for a log history without arrays')
        values: Any = self.values.array
        counts: Any = self.counts.array
        if not (
            values.ndim == counts.ndim == 1
            and len(values) == len(counts)
            and values.dtype.kind in 'biuf'
            and counts.dtype.kind in 'biuf'
        ):
            raise Rejected('it asks for a log history of something else than numbers in a row')
        if type(self.max_length) is not int or self.max_length < 1:
            raise Rejected(f'it asks for a log history of {shown(self.max_length)} entries')
        return HistoryBuffer(values, counts, self.max_length)


def begin_array(kind: Any, *_: Any) -> Array:
    """Stands for the function of NumPy that an array's pickle begins with."""
    if kind is not Array:
        raise Rejected(f'it asks for a NumPy array of {shown(kind)}')
    return Array()


def number(dtype: Any, data: Any) -> Any:
    """Stands for the function of NumPy that makes a number."""
    array = Array()
    array.__setstate__((1, (), dtype, False, data))
    return array.array[()]


def statistic(_: type, name: str) -> str:
    """Stands for ``getattr`` of ``HistoryBuffer`` and one of its statistics, nothing else."""
    return name


# By the names in a file. NumPy 2 moved its functions; either version reads files of either.
STAND_INS = {
    'builtins.bytes': bytes,
    'builtins.getattr': statistic,
    'mmengine.logging.history_buffer.HistoryBuffer': History,
    'numpy.dtype': DType,
    'numpy.ndarray': Array,
    'numpy.core.multiarray._reconstruct': begin_array,
    'numpy._core.multiarray._reconstruct': begin_array,
    'numpy.core.multiarray.scalar': number,
    'numpy._core.multiarray.scalar': number,
}
_KINDS = (DType, Array, History)


def restore(checkpoint: Any) -> Any:
    """Put objects of NumPy and mmengine where a checkpoint has stand-ins.

    Args:
        checkpoint (Any): What was read. Its dicts and lists are changed in place.

    Returns:
        Any: The same without stand-ins.

    Raises:
        Rejected: If a stand-in is incomplete, or where only names and numbers belong.
    """
    return _restore(checkpoint, {})


def _restore(node: Any, done: dict[int, tuple]) -> Any:
    """Restore what is below a node; ``done`` has those that were visited, before and after."""
    if id(node) in done:
        return done[id(node)][1]
    done[id(node)] = node, node  # for a node that contains itself
    restored = node
    if isinstance(node, _KINDS):
        try:
            restored = node.restore()
        except AttributeError as error:
            raise Rejected(f'it asks for {shown(node)} of which nothing follows') from error
    elif isinstance(node, dict):
        for key, value in node.items():
            node[key] = _restore(value, done)
    elif isinstance(node, list):
        node[:] = [_restore(value, done) for value in node]
    elif type(node) is tuple:
        restored = tuple(_restore(value, done) for value in node)
    done[id(node)] = node, restored
    return restored
