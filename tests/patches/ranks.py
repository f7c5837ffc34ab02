"""The distributed processes that torchrun starts, forked as well: each would import for seconds.

torchrun starts them with the program that PYTHON_EXEC names. That is a client here (rank.py): it
hands its arguments to a server, which forks; it passes signals on, ends as the process ends, and
takes it along if it is killed.
"""

import json
import multiprocessing
import os
import runpy
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory

from patches.forked import run_in_this_process, start_server

FORK = multiprocessing.get_context('fork')


@contextmanager
def ranks_server() -> Iterator[Path]:
    """Serve a client, whose path this is."""
    # A folder of this user alone, and with a short path: a socket's may have 107 characters.
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address, client = f'{folder}/socket', Path(folder, 'python')
        command = [sys.executable, '-IS', str(Path(__file__).with_name('rank.py')), address]
        client.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding='utf-8')
        client.chmod(0o755)
        listener.bind(address)
        listener.listen()
        server = start_server().Process(target=_serve, args=(listener,))
        server.start()
        try:
            yield client
        finally:
            server.kill()
            server.join()


def _serve(listener: socket.socket) -> None:
    parent = multiprocessing.parent_process().sentinel
    while parent not in wait([listener, parent]):
        connection, _ = listener.accept()
        FORK.Process(target=_attend, args=(connection,)).start()
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Fork a process for a client, pass its signals on, and tell it how the process ends."""
    message, streams, *_ = socket.recv_fds(connection, 1 << 16, 2)
    while not message.endswith(b'\0'):
        message += connection.recv(1 << 16)
    arguments, environ, folder, client = json.loads(message[:-1])
    process = FORK.Process(
        target=run_in_this_process,
        args=(_run_program, (arguments, folder, client), environ, streams),
    )
    process.start()
    while process.sentinel not in wait([connection, process.sentinel]):
        number = connection.recv(1)
        if not number:  # the client was killed
            process.kill()
            return
        os.kill(process.pid, number[0])
    process.join()
    connection.sendall(str(process.exitcode).encode())


def _run_program(arguments: list[str], folder: str, client: int) -> None:
    """Do what ``python -u PROGRAM ...`` does, in a process that says whose it is."""
    Path('/proc/self/comm').write_text(f'of {client}', encoding='utf-8')
    os.chdir(folder)
    sys.argv = arguments[arguments[0] == '-u' :]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name='__main__')
