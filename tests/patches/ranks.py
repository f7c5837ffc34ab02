"""The distributed processes that torchrun starts, forked as well: each would import for seconds.

torchrun starts them with the program that PYTHON_EXEC names. That is a client here: it hands its
arguments to a server, which forks, and it passes signals on, ends as the process ends, and takes it
along if it is killed.
"""

import json
import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

from patches.forked import run_in_this_process, start_server

CLIENT = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
from pathlib import Path

server = socket.socket(socket.AF_UNIX)
server.connect(str(Path(__file__).with_name('socket')))
request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), os.getpid()])
socket.send_fds(server, [request.encode() + b'\\0'], [1, 2])
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
code = int(server.recv(9) or -signal.SIGKILL)
if code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
    signal.signal(-code, signal.SIG_DFL)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
FORK = multiprocessing.get_context('fork')


@contextmanager
def ranks_server(folder: Path) -> Iterator[Path]:
    """Serve a client, which is written into an empty folder."""
    client = folder / 'python'
    client.write_text(CLIENT, encoding='utf-8')
    client.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / 'socket'))
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
        os.kill(process.pid, number[0] if number else signal.SIGKILL)
        if not number:  # the client was killed
            break
    process.join()
    connection.sendall(str(process.exitcode).encode())


def _run_program(arguments: list[str], folder: str, client: int) -> None:
    """Do what ``python -u PROGRAM ...`` does, in a process that says whose it is."""
    Path('/proc/self/comm').write_text(f'of {client}', encoding='utf-8')
    os.chdir(folder)
    sys.argv = arguments[arguments[0] == '-u' :]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name='__main__')
