"""Reading checkpoint files: tensors, what mmengine writes with them, and nothing else."""

import errno
import os
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version

from ..utils.errors import UserValueError
from ..utils.paths import open_regular
from ..utils.text import shown
from .pickles import STAND_INS, Rejected, restore
from .scan import scan_archive, scan_legacy
from .structure import require_checkpoint

# What torch says of a file that it has not written, or of only a part of one.
_BROKEN = 'PytorchStreamReader|Invalid magic number|unexpected EOF|storage has wrong byte size'


def read_checkpoint(file: str | os.PathLike[str] | BinaryIO, map_location: Any = None) -> Any:
    """Read a checkpoint, weights only: whatever it holds, nothing of it is executed.

    All that mmengine reads, from wherever, is read here: see :mod:`lesa_mmdet.checkpoints.schemes`.

    Args:
        file (str, os.PathLike or BinaryIO): Path of a file, or an open one.
        map_location (Any): As of ``torch.load``.

    Returns:
        Any: What was saved: tensors, numbers, strings, NumPy arrays of numbers, mmengine's log
        history, and dicts, lists and tuples of these. Weights are in ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is a folder, no checkpoint, truncated, or asks for anything else.
        ImportError: If torch is older than 2.6.
    """
    if digit_version(torch.__version__) < digit_version('2.6'):
        raise ImportError(
            f'checkpoints are read with torch 2.6 or newer, here is {torch.__version__}: older '
            'versions let a file run code even where they read weights only (CVE-2025-32434)'
        )
    if not isinstance(file, (str, os.PathLike)):
        return _read(file, getattr(file, 'name', 'in memory'), map_location)
    path = os.path.expanduser(file)
    with open_regular(path, 'checkpoint') as opened:
        return _read(opened, path, map_location)


def _read(file: BinaryIO, name: Any, map_location: Any) -> Any:
    """Read an open file."""
    start = file.tell()
    try:
        is_archive = file.read(4) == b'PK\3\4'
        (scan_archive if is_archive else scan_legacy)(file)
        file.seek(start)
        # Allowed for this call alone: stand-ins, but still names of NumPy and mmengine.
        with torch.serialization.safe_globals([(value, key) for key, value in STAND_INS.items()]):
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
        checkpoint = restore(checkpoint)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a seek beyond it
            raise
        raise UserValueError(_explain(name, error)) from error
    _drop_code(checkpoint)
    _name_weights(checkpoint)
    require_checkpoint(checkpoint, f'checkpoint {shown(name, 300)}')
    return checkpoint


def _explain(name: Any, error: Exception) -> str:
    """Why a file is not read, in one sentence."""
    if isinstance(error, Rejected):
        return (
            f'checkpoint {shown(name, 300)} is refused, nothing of it was executed: {error}; only '
            "tensors, numbers, text, NumPy's numbers and arrays of them, mmengine's log history, "
            'and dicts, lists and tuples of these are read'
        )
    if isinstance(error, RuntimeError) and not re.search(_BROKEN, str(error)):
        reason = re.split(r'(?<=[a-z)])\. |\n', str(error))[0]
        return f'checkpoint {shown(name, 300)} cannot be read: {shown(reason, 300)}'
    return (
        f'{shown(name, 300)} is not a checkpoint of torch.save, or it is truncated '
        f'({type(error).__name__}: {shown(error)}): download or save it again'
    )


def _drop_code(checkpoint: Any) -> None:
    """Drop the config of mmdet 2: mmengine runs that text as Python when it resumes."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    if isinstance(meta, dict):
        meta.pop('config', None)


def _name_weights(checkpoint: Any) -> None:
    """Call weights ``state_dict``, as mmengine does, where others have them.

    LESA's authors have them in ``net``, ELSA's in ``model``. timm has its averaged weights, for
    which it reports accuracies, in ``state_dict_ema``.
    """
    if not isinstance(checkpoint, dict):
        return
    if 'state_dict_ema' in checkpoint:
        checkpoint['state_dict'] = checkpoint.pop('state_dict_ema')
        print_log('The weights are the averaged ones, state_dict_ema.', logger='current')
    for name in ('net', 'model'):
        if 'state_dict' not in checkpoint and isinstance(checkpoint.get(name), dict):
            checkpoint['state_dict'] = checkpoint.pop(name)
