"""What all commands share: a mistake ends in one sentence, and nothing runs on after a signal."""

import errno
import faulthandler
import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Any
from urllib.request import getproxies

from mmengine.config import DictAction
from mmengine.device import get_device

from .errors import MENDABLE, UserValueError
from .text import shown

# What PyTorch says of a limit of the system, and what to do about it.
_LIMITS = {
    r'^DataLoader worker .*(exited unexpectedly|killed by signal)': (
        'a worker of a data loader was killed, most often for want of memory: set fewer '
        'num_workers or a smaller batch_size in the loader, or enlarge /dev/shm'
    ),
    'received 0 items of ancdata|Too many open files': (
        'too many files are open: allow more (ulimit -n 4096), or set fewer num_workers'
    ),
}
_IN_WORKER = re.compile(r'Caught \w+ in DataLoader worker process \d+\.')
_LOOPBACK = ('localhost', '127.0.0.1', '::1')
GRACE = 3  # seconds that a process has to end after a signal
CALL_GRACE = 2 * GRACE  # the same for one that was started, and has started others


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Make a function one that a command line tool calls.

    What a user can mend (``MENDABLE`` in :mod:`lesa_mmdet.utils.errors`) ends in one line,
    ``error: ...``, and exit code 1. Any other error is a bug, and keeps its traceback. Ctrl-C and
    SIGTERM end the processes that were started, too. What this machine serves is not asked for
    through a proxy.

    Args:
        main (Callable[..., None]): What the tool does, with the arguments of this process.

    Returns:
        Callable[..., None]: The same, to be called in the main thread.
    """

    @wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        for stream in (sys.stdout, sys.stderr):  # a name that a terminal cannot show is escaped
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors='backslashreplace')
        _spare_loopback()
        with _handling(_end):
            try:
                sys.argv[1:] = map(_expand_home, sys.argv[1:])
                _check_options(sys.argv[1:])
                main(*args, **kwargs)
            except KeyboardInterrupt:
                print('\ninterrupted', file=sys.stderr)
                sys.exit(128 + signal.SIGINT)
            except Exception as error:
                sentence = explain(error)
                if sentence is None:
                    raise
                lines = (shown(line, 10_000) for line in sentence.split('\n'))
                sys.exit('error: ' + '\n'.join(lines))

    return run


def _spare_loopback() -> None:
    """Keep requests to this machine from a proxy, which cannot answer for it."""
    spared = os.environ.get('no_proxy') or os.environ.get('NO_PROXY') or ''
    if getproxies() and spared != '*':  # which is every host, if it stands alone
        hosts = dict.fromkeys([*filter(None, spared.split(',')), *_LOOPBACK])
        os.environ['no_proxy'] = os.environ['NO_PROXY'] = ','.join(hosts)


def add_model_options(parser: ArgumentParser) -> None:
    """Add what all tools take that run models: ``--device`` and ``--cfg-options``."""
    parser.add_argument('--device', default=get_device())
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='changes to every config'
    )


def add_out(parser: ArgumentParser, default: str, what: str) -> None:
    """Add ``--out``: where a tool writes what it draws."""
    parser.add_argument(
        '--out', type=Path, default=Path(default), help=f'{what}; default: %(default)s'
    )


def add_repeatable(parser: ArgumentParser, option: str, **kwargs: Any) -> None:
    """Add an option of several values that may be given several times: a list of lists.

    Args:
        parser (ArgumentParser): Where to add it.
        option (str): Its name and those of its values: ``'--models CONFIG CHECKPOINT'``.
        **kwargs: As of ``add_argument``.
    """
    name, *values = option.split()
    parser.add_argument(name, nargs=len(values), metavar=tuple(values), action='append', **kwargs)


def call(arguments: Sequence[str], **kwargs: Any) -> int:
    """Run a program, and end it when this process is to end.

    Args:
        arguments (Sequence[str]): The program and its arguments.
        **kwargs: As of ``subprocess.Popen``.

    Returns:
        int: Its exit code.
    """
    with ExitStack() as held:
        held.enter_context(_signals_held())
        process = subprocess.Popen(arguments, **kwargs)
        try:
            held.close()
            return process.wait()
        except BaseException:
            faulthandler.cancel_dump_traceback_later()  # not before the program has ended
            process.terminate()
            try:
                process.wait(CALL_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let signals wait while a program starts: until it is known, nobody could end it."""
    came: list[int] = []
    try:
        with _handling(lambda number, frame: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Give Ctrl-C and SIGTERM to a handler, unless they are ignored, as under nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, usual in before.items():
        if usual is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


def explain(error: BaseException) -> str | None:
    """What to tell a user about an error.

    Returns:
        str, optional: One sentence, or None: it is a bug, as far as is known.
    """
    if isinstance(error, RuntimeError):
        found = (hint for text, hint in _LIMITS.items() if re.search(text, str(error)))
        if hint := next(found, None):
            return hint
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f'for {shown(str(error.filename))} ' if error.filename else ''
        return f'no space is left {where}on the disk: free some, or write to another folder'
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != 'utf-8':
        return (
            f'{shown(error.object)} is no name of a file in the encoding of this locale '
            f'({error.encoding}): set LC_ALL=C.UTF-8, or PYTHONUTF8=1'
        )
    if not isinstance(error, MENDABLE):
        return None
    text, context = str(error), error.__context__
    if _IN_WORKER.match(text):  # PyTorch keeps the class, and makes the traceback the message
        last = rf'^(?:\w+\.)*{type(error).__name__}: '
        return re.split(last, text, flags=re.MULTILINE)[-1].strip()
    # mmengine before 0.10 raises what a constructor raised anew, with the class's name before it.
    is_anew = error.__cause__ is None and type(context) is type(error)
    return str(context) if is_anew and text.endswith(str(context)) else text


def _expand_home(argument: str) -> str:
    """Let ``~`` be the home folder where a shell leaves it: within quotes, and after ``=``."""
    name, equals, value = argument.partition('=')
    if equals and value.startswith('~') and not name.startswith('~'):
        return f'{name}={os.path.expanduser(value)}'
    return os.path.expanduser(argument)


def _check_options(arguments: Sequence[str]) -> None:
    """Say what ``--cfg-options`` takes, where mmengine's parser says nothing of use."""
    takes_options = False
    for argument in arguments:
        if argument.startswith('-'):
            takes_options = argument == '--cfg-options'
        elif takes_options and '=' not in argument:
            raise UserValueError(
                f'--cfg-options takes KEY=VALUE, got {argument!r}; other arguments stand before '
                'it, and a value with spaces or brackets is quoted'
            )


def _end(number: int, frame: Any) -> None:
    """End, and if that takes longer than it may, at once: workers may not answer any more."""
    faulthandler.dump_traceback_later(GRACE, exit=True, file=open(os.devnull, 'wb'))
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
