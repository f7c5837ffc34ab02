"""One training at a time in a work directory."""

import errno
import json
import logging
import os
import socket
import sys
from pathlib import Path

from mmengine.logging import print_log

from ..utils.configs import is_config
from ..utils.errors import UserValueError
from ..utils.paths import require_no_link, require_regular
from ..utils.schema import COUNT, TEXT, parse_json, require
from ..utils.text import shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = 'training.lock'
WRITTEN = NAME, 'last_checkpoint'  # in place, as the config is; checkpoints replace what is there
# Open files by the path of the directory: the locks of this process. None where there are none.
_held = {}


def lock(folder: Path) -> None:
    """Take a work directory for this process, until it ends or releases it.

    The lock is the system's, so that it ends with the process, however that ends: the file that is
    left behind means nothing. It holds who has the lock, for others to read. A disk that has no
    locks keeps nobody out, and is used with a warning.

    Args:
        folder (Path): The directory; it is made if it does not exist.

    Raises:
        ValueError: If another process has it, with what is known of that, or there are links where
            a training writes.
    """
    folder = Path(folder).resolve()
    if folder in _held or fcntl is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name in WRITTEN or is_config(path):
            require_no_link(path)
    if (folder / NAME).exists():
        require_regular(folder / NAME, 'the lock')
    file = open(folder / NAME, 'a+', encoding='utf-8')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # those say that it is held
            file.close()
            print_log(
                f'{folder} cannot be locked, its disk has no locks ({error.strerror}): nothing '
                'keeps another training out of it',
                logger='current',
                level=logging.WARNING,
            )
            _held[folder] = None
            return
        file.seek(0)
        holder = _describe(file.read())
        file.close()
        raise UserValueError(
            f'{folder} is in use by another training, {holder}: wait for its end, stop it, or take '
            'another --work-dir'
        ) from error
    file.truncate(0)
    process = dict(pid=os.getpid(), host=socket.gethostname(), command=' '.join(sys.argv))
    file.write(json.dumps(process))
    file.flush()
    _held[folder] = file


def lock_work_dir(folder: str | None, config: str, launcher: str) -> None:
    """Take the work directory of a training before anything is built and written there.

    Args:
        folder (str, optional): As an argument or the config names it.
        config (str): The config's file, after which mmdet calls it otherwise.
        launcher (str): mmdet's ``--launcher``; of many processes the first takes it.

    Raises:
        ValueError: If another process has it.
    """
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    rank = next((rank for rank in ranks if rank), '0')
    if launcher == 'none' or rank == '0':
        lock(Path(folder or Path('work_dirs', Path(config).stem)))


def release(folder: Path) -> None:
    """Give a work directory of this process back."""
    file = _held.pop(Path(folder).resolve(), None)
    if file:
        file.truncate(0)
        file.close()


def _describe(text: str) -> str:
    try:
        holder = parse_json(text, NAME)
        require(holder, {'pid': COUNT, 'host': TEXT, 'command': TEXT}, NAME)
    except UserValueError:
        return 'of which nothing is known'
    return f'process {holder["pid"]} on {shown(holder["host"])} ({shown(holder["command"], 300)})'
