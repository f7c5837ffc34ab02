"""Writing files atomically: whatever happens meanwhile, there is the old one or the new one."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

UNFINISHED = '.tmp'  # what such a file's name ends with


class AtomicBackend(LocalBackend):
    """mmengine's files on disk, each written under another name and renamed when it is complete.

    For the ``backend_args`` of mmengine: ``dict(backend='atomic')``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        write_atomic(filepath, obj)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file so that it is complete, even after a loss of power, or not there.

    Args:
        path (str or Path): Where to write it. What is there is replaced.
        data (bytes): All of it.

    Raises:
        OSError: If it cannot be written, as on a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    file = open(unfinished, 'wb', opener=_open_no_link)  # a link there is not ours to remove
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)  # of a full disk, half a checkpoint is much
        error.filename = error.filename or str(path)
        raise
    if os.name == 'posix':  # the folder has to know its new name, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _open_no_link(path: str, flags: int) -> int:
    """Open a file to write, but not through a link, which leads elsewhere."""
    return os.open(path, flags | getattr(os, 'O_NOFOLLOW', 0), 0o666)


register_backend('atomic', AtomicBackend, force=True)
