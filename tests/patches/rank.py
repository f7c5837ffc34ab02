"""What torchrun starts instead of Python: ``rank.py SOCKET -u PROGRAM ...``, see ranks.py.

It imports nothing that takes time.
"""

import json
import os
import signal
import socket
import sys

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
request = json.dumps([sys.argv[2:], dict(os.environ), os.getcwd(), os.getpid()])
socket.send_fds(server, [request.encode() + b'\0'], [1, 2])
for number in SIGNALS:
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
code = int(server.recv(9) or -signal.SIGKILL)  # without an answer, the server was killed
if -code in SIGNALS:
    signal.signal(-code, signal.SIG_DFL)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
