"""Programs in processes that are forked with mmdet imported, which takes seconds each time."""

import multiprocessing
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from helpers.paths import ROOT
from patches import PLAIN


def run_forked(
    function: Callable[..., Any], *args: Any, output: Path, timeout: float | None = None
) -> int | None:
    """Call a function in a process of its own, as Python runs a program.

    Args:
        function (Callable): Can be pickled. What it exits with is the exit code.
        *args: Its arguments.
        output (Path): File that is given what it prints, to either stream.
        timeout (float, optional): Seconds until it is killed.

    Returns:
        int | None: Exit code; ``None`` if it was killed.
    """
    process = start_forked(function, *args, output=output)
    process.join(timeout)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    return code


def start_forked(function: Callable[..., Any], *args: Any, output: Path) -> BaseProcess:
    """What :func:`run_forked` does, without waiting for the process."""
    process = start_server().Process(target=_run, args=(function, args, output, dict(os.environ)))
    process.start()
    return process


def execute_in_session(command: Sequence[str]) -> None:
    """:func:`execute` as the leader of a session, by which workers and all can be killed."""
    os.setsid()
    execute(command)


def execute(command: Sequence[str], env: Mapping[str, str] = {}) -> None:
    """Do in this process what ``python COMMAND`` does in the repository, with this environment."""
    os.chdir(ROOT)
    os.environ.update(env)
    folders = [Path(folder) for folder in env.get('PYTHONPATH', '').split(os.pathsep) if folder]
    sys.path += map(str, folders)
    for site in (folder / 'sitecustomize.py' for folder in folders):
        if site.is_file():
            exec(site.read_text(encoding='utf-8'), globals())  # what it makes stays
    sys.argv = list(command)
    sys.path.insert(0, str((ROOT / command[0]).parent))
    runpy.run_path(str(ROOT / command[0]), run_name='__main__')


@cache
def start_server() -> BaseContext:
    """Start the process that has imported what programs need, and from which they are forked."""
    if PLAIN:
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['patches.preload'])
    folders = [str(ROOT), str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')]
    # Triton, which torch imports, for compiling: what interprets its kernels is not forked.
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(folders), TRITON_INTERPRET='0'):
        forkserver.ensure_running()
    return context


def _run(function: Callable, args: tuple, output: Path, environ: dict[str, str]) -> None:
    with output.open('w', encoding='utf-8') as file:
        run_in_this_process(function, args, environ, (file.fileno(), file.fileno()))


def run_in_this_process(
    function: Callable, args: tuple, environ: Mapping[str, str], streams: tuple[int, int]
) -> None:
    import torch

    if not PLAIN:
        from patches.preload import PATH

        sys.path[:] = PATH
    torch.set_num_threads(1)  # pools of threads do not survive a fork
    os.environ.clear()
    os.environ.update(environ)
    for number, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream, number)
    # Line by line, as in a terminal: what is printed last comes last.
    sys.stdout, sys.stderr = (
        open(number, 'w', 1, encoding='utf-8', closefd=False) for number in (1, 2)
    )
    code = 0
    try:
        function(*args)
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)  # multiprocessing ends the workers of a data loader, as it does for a program
