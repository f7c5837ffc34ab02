"""Reading checkpoint files: tensors and what mmengine writes beside them, and nothing else."""

import pickle
import re
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local
from mmengine.utils import digit_version

_STATISTICS = ('current', 'max', 'mean', 'min')


def register() -> None:
    """Let mmengine read its own checkpoints, and say in one sentence why a file is not read.

    Since torch 2.6 ``torch.load`` reads weights only unless told otherwise, and mmengine 0.10
    does not tell. Its log history, ``HistoryBuffer`` objects full of NumPy arrays, is allowed here
    by name. Older versions of torch neither need nor know that.
    """
    CheckpointLoader.register_scheme(prefixes='', loader=load_local_checkpoint, force=True)
    if digit_version(torch.__version__) < digit_version('2.6'):
        return
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (history_buffer_method, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            type(np.dtype('float64')),
            type(np.dtype('int64')),
        ]
    )
    # How NumPy pickles arrays and scalars. NumPy 2 moved it; either version reads files of either.
    for value in (np.empty(0), np.float64()):
        rebuild = value.__reduce__()[0]
        torch.serialization.add_safe_globals(
            (rebuild, f'numpy.{core}.multiarray.{rebuild.__name__}') for core in ('core', '_core')
        )


def history_buffer_method(owner: Any, name: str) -> Any:
    """What a checkpoint gets for ``getattr``: the statistics of ``HistoryBuffer``, nothing else.

    Raises:
        pickle.UnpicklingError: If anything else is asked for.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r}) is not allowed')
    return getattr(HistoryBuffer, name)


def load_local_checkpoint(filename: str, map_location: Any = None) -> Any:
    """Load a checkpoint file as mmengine does, with an error that names the file and the reason.

    Args:
        filename (str): Path of the file.
        map_location (Any): As of ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, is truncated, or asks for anything but tensors and
            mmengine's log history, of which nothing is executed.
    """
    try:
        return load_from_local(filename, map_location)
    except (FileNotFoundError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        asked_for = re.search(r'GLOBAL (\S+)', str(error))
        if isinstance(error, pickle.UnpicklingError) and asked_for:
            raise ValueError(
                f'checkpoint {filename} is refused, nothing of it was executed: it asks for '
                f"{asked_for[1]}, but only tensors and mmengine's log history are allowed"
            ) from error
        reason = type(error).__name__ if isinstance(error, pickle.UnpicklingError) else repr(error)
        raise ValueError(
            f'{filename} is not a checkpoint of torch.save, or it is truncated ({reason}): '
            'download or save it again'
        ) from error
