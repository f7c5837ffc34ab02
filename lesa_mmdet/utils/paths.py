"""Whether files and folders are there, and whether results can be written."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from .errors import UserFileNotFoundError, UserPermissionError, UserValueError

TRAIN_HINT = 'train one with tools/train.py'


def is_url(source: str | Path) -> bool:
    """Whether a source is fetched from a network rather than read from a disk.

    ``file://`` is not: neither mmengine nor OpenCV read it.
    """
    return '://' in str(source) and not str(source).startswith('file://')


def check_exists(
    path: str, what: str, hint: str, *, is_folder: bool = False, knows_home: bool = True
) -> None:
    """Look for a file or folder, unless it is a URL.

    Args:
        path (str): Where it is; nothing is looked for if it is empty.
        what (str): What it is, to begin the sentence with.
        hint (str): Where to get it.
        is_folder (bool): Whether it is a folder.
        knows_home (bool): Whether who reads it takes ``~`` for the home folder. mmengine does so
            for checkpoints, and takes it literally everywhere else.

    Raises:
        FileNotFoundError: If it does not exist: what it is, and where to get it.
        ValueError: If it is a folder instead of a file, or the other way round.
    """
    if not path or is_url(path):
        return
    found = Path(path).expanduser() if knows_home else Path(path)
    if not found.exists():
        if found != found.expanduser():
            hint = f'~ stands for no folder there: write {found.expanduser()}'
        where = '' if found.is_absolute() else f' in {Path.cwd()}'
        raise UserFileNotFoundError(f'{what}: {path} does not exist{where}; {hint}')
    kind = 'a folder' if is_folder else 'a file'
    if kind_of(found) != kind:
        raise UserValueError(f'{what}: {path} is {kind_of(found)}, but has to be {kind}')


def kind_of(path: str | os.PathLike) -> str:
    """What a path is: 'a file', 'a folder', 'a named pipe', 'a socket' or 'a device'.

    Raises:
        FileNotFoundError: If it does not exist.
    """
    mode = os.stat(path).st_mode
    kinds = {
        'a file': stat.S_ISREG,
        'a folder': stat.S_ISDIR,
        'a named pipe': stat.S_ISFIFO,
        'a socket': stat.S_ISSOCK,
    }
    return next((kind for kind, matches in kinds.items() if matches(mode)), 'a device')


def is_other_than_file(path: str) -> bool:
    """Whether there is a folder, a pipe, a socket or a device; False of a URL and of nothing."""
    return os.path.exists(path) and kind_of(path) != 'a file'


def open_regular(path: str | os.PathLike, what: str) -> BinaryIO:
    """Open a file to read its bytes, and nothing but a file: a pipe or a device may never end.

    Args:
        path (str or os.PathLike): Its path.
        what (str): What to call it in errors.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is a folder, a pipe, a socket or a device.
    """
    require_regular(path, what)
    return open(path, 'rb')


def require_regular(path: str | os.PathLike, what: str) -> None:
    """Refuse to read what is no file, for those who open it themselves; see :func:`open_regular`.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is a folder, a pipe, a socket or a device.
    """
    if kind_of(path) != 'a file':
        raise UserValueError(f'{what} {path} is {kind_of(path)}, but has to be a file')


def require_no_link(path: Path) -> None:
    """Refuse to write where a link may lead elsewhere: a folder may be a stranger's.

    Raises:
        ValueError: If it is a link.
    """
    if path.is_symlink():
        raise UserValueError(f'{path} is a link, to which nothing is written: remove it')


def check_output(
    path: str, what: str, suffixes: Sequence[str] = (), *, is_folder: bool = False
) -> None:
    """Check, before the work is done, that its result can be written.

    Args:
        path (str): What is going to be written. Nothing is made of it, or changed.
        what (str): What to call it in errors: the option that named it.
        suffixes (Sequence[str]): What the name of a file may end with; anything, if empty.
        is_folder (bool): Whether it is to be a folder.

    Raises:
        ValueError: If it is a folder instead of a file, or the other way round, or its name ends
            with something else.
        PermissionError: If there may not be written.
    """
    target = Path(path).expanduser()
    if target.exists() and target.is_dir() != is_folder:
        kinds = ('a file', 'a folder')
        raise UserValueError(
            f'{what} {path} is {kinds[not is_folder]}, but has to be {kinds[is_folder]}'
        )
    if suffixes and target.suffix.lower() not in suffixes:
        raise UserValueError(f'{what} {path} has to end with {", ".join(suffixes)}')
    there = next(parent for parent in (target, *target.absolute().parents) if parent.exists())
    if there != target and not there.is_dir():
        raise UserValueError(f'{what} {path} cannot be written: {there} is a file, not a folder')
    if not os.access(there, os.W_OK):
        raise UserPermissionError(f'{what} {path} cannot be written: no permission for {there}')
