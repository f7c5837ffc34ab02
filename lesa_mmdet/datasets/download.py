"""Download archives, go on where a download broke off, and unpack them."""

import os
import shutil
import time
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import BadZipFile, ZipFile, ZipInfo
from zlib import crc32, error

from tqdm import tqdm

from ..utils import transfer
from ..utils.text import shown
from ..utils.transfer import CHUNK, TooSlowError, read_chunks, read_length

TRIES = 5  # in a row without a byte, or with next to none


def get_size(url: str) -> int:
    """Ask a server how large a file is.

    Args:
        url (str): Address of the file.

    Returns:
        int: Bytes.

    Raises:
        OSError: If the server cannot be reached, has no such file, or does not say.
    """
    try:
        with urlopen(Request(url, method='HEAD'), timeout=transfer.TIMEOUT) as answer:
            size = read_length(answer)
    except (OSError, HTTPException) as error:
        raise OSError(f'{url} cannot be reached: {_explain(error)}') from error
    if size is None:
        raise OSError(f'{url}: the server does not say how large it is')
    return size


def get_progress(path: Path) -> int:
    """How much of a file is there, downloads that broke off included.

    Args:
        path (Path): File, as given to ``download``.

    Returns:
        int: Bytes.
    """
    return next((p.stat().st_size for p in (path, _part(path)) if p.is_file()), 0)


def download(url: str, path: Path) -> None:
    """Download a file atomically: it is there completely, or not at all.

    What has come so far is in ``path`` + ``.part``. When the connection breaks it goes on from
    there, and so does another call.

    Args:
        url (str): Address of the file.
        path (Path): File to write. If it is there in full size, nothing is done.

    Raises:
        OSError: If the server cannot be reached or sends something of another size, or the disk has
            no room for the rest.
    """
    size = get_size(url)
    if path.is_file() and path.stat().st_size == size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.touch()
    have = get_progress(part)
    free = shutil.disk_usage(path.parent).free
    if free < size - have:
        raise OSError(f'{path}: {size - have:,} bytes to come, but the disk has {free:,} left')

    failures = 0
    with tqdm(total=size, initial=have, unit='B', unit_scale=True, desc=path.name) as bar:
        while have < size:
            error = _append(url, part, bar, size)
            before, have = have, get_progress(part)
            goes_on = have > before and not isinstance(error, TooSlowError)
            failures = 0 if goes_on else failures + 1
            if failures == TRIES:
                raise OSError(
                    f'{url} broke off at {have:,} of {size:,} bytes ({_explain(error)}): '
                    'run this again to go on from there'
                )
            if error:
                time.sleep(failures)
    if have != size:
        part.unlink()
        raise OSError(f'{url}: {have:,} bytes came, but it has {size:,}: run this again')
    os.replace(part, path)


def _append(url: str, part: Path, bar: tqdm, size: int) -> Exception | None:
    """Add what comes in one connection, but not much more than a size.

    Returns:
        Exception, optional: Why it broke off, if it did.
    """
    have = get_progress(part)
    request = Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        with urlopen(request, timeout=transfer.TIMEOUT) as answer:
            goes_on = answer.status == 206 and have
            bar.update((have if goes_on else 0) - bar.n)
            with part.open('ab' if goes_on else 'wb') as file:
                for chunk in read_chunks(answer):
                    file.write(chunk)
                    bar.update(len(chunk))
                    if file.tell() > size:
                        break
    except (OSError, HTTPException) as error:
        return error
    return None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file; what is there already stays.

    Args:
        archive (Path): Zip file.
        folder (Path): Folder to unpack into.

    Raises:
        OSError: If the archive is damaged.
    """
    try:
        with ZipFile(archive) as content:
            members = content.infolist()
            for member in members:
                if not _lies_below(member.filename):
                    raise OSError(
                        f'{archive} would write outside of {folder}, to {shown(member.filename)}: '
                        'delete it, and get it from elsewhere'
                    )
            free = shutil.disk_usage(archive.parent).free
            missing = [m for m in members if not _is_there(folder / m.filename, m)]
            size = sum(member.file_size for member in missing)
            if size > free:
                raise OSError(
                    f'{archive} unpacks to {size:,} bytes, but the disk has {free:,} left'
                )
            for member in tqdm(missing, desc=f'unpacking {archive.name}'):
                content.extract(member, folder)
    except (BadZipFile, EOFError, RuntimeError, NotImplementedError, error) as problem:
        raise OSError(
            f'{archive} is damaged or encrypted ({shown(problem)}): delete it and run this again'
        ) from problem


def _lies_below(name: str) -> bool:
    """Whether a member of an archive stays in the folder that it is unpacked into."""
    path = PurePosixPath(name)
    return not path.is_absolute() and '..' not in path.parts and '\\' not in name


def _is_there(target: Path, member: ZipInfo) -> bool:
    """Whether a member has been unpacked, with its content."""
    if not target.is_file() or target.stat().st_size != member.file_size:
        return False
    check = 0
    with target.open('rb') as file:
        while chunk := file.read(CHUNK):
            check = crc32(chunk, check)
    return check == member.CRC


def _part(path: Path) -> Path:
    return path.with_name(f'{path.name}.part')


def _explain(error: Exception | None) -> str:
    if isinstance(error, HTTPError):
        return f'the server answers {error.code} {shown(error.reason)}'
    return shown(str(getattr(error, 'reason', error)) or 'the server closed the connection')
