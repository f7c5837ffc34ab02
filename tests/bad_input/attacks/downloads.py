"""Servers from which checkpoints and data sets are fetched, on this machine."""

import io
import socket
import threading
import time
import zipfile
from types import SimpleNamespace

import torch

from lesa_mmdet.checkpoints import schemes
from lesa_mmdet.datasets import download as data
from lesa_mmdet.utils import transfer

from helpers.bad_input import Case

OK = b'HTTP/1.1 200 OK\r\n'


def checkpoint():
    buffer = io.BytesIO()
    torch.save({'state_dict': {}}, buffer)
    return buffer.getvalue()


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def listen(answer):
    """A server that sends to each who asks what a function yields; returns its address."""
    server = socket.create_server(('127.0.0.1', 0))

    def serve():
        while True:
            connection, _ = server.accept()
            with connection:
                request = connection.recv(65536)
                try:
                    for part in answer(request.startswith(b'HEAD')):
                        connection.sendall(part)
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    return f'http://127.0.0.1:{server.getsockname()[1]}'


def hurry(place):
    """Wait for servers no longer than a test may."""
    torch.hub.set_dir(str(place / 'hub'))
    data.time = SimpleNamespace(sleep=lambda seconds: None)
    transfer.TIMEOUT, transfer.SLOW_TIME = 0.5, 1


def fetched(name, sentence, answer, file='model.pth', code=1):
    """A case of a checkpoint at an address."""

    def do(place):
        hurry(place)
        try:
            schemes.load_from_http(f'{listen(answer)}/{file}')
        finally:
            kept = [path.name for path in (place / 'hub').rglob('*') if path.is_file()]
            assert code == 0 or 'is no' in name or kept == [], kept

    return Case(name, sentence, do, code)


def downloaded(name, sentence, answer):
    """A case of an archive of a data set."""

    def do(place):
        hurry(place)
        data.download(f'{listen(answer)}/val2017.zip', place / 'val2017.zip')
        data.unpack(place / 'val2017.zip', place / 'data')

    return Case(f'data: {name}', sentence, do)


def unpacked(name, sentence, content, before=lambda place: None, code=1):
    """A case of an archive that is there."""

    def do(place):
        before(place)
        (place / 'a.zip').write_bytes(content() if callable(content) else content)
        try:
            data.unpack(place / 'a.zip', place / 'data' / 'inner')
        finally:
            written = {
                str(path.relative_to(place.folder))
                for path in place.folder.rglob('*')
                if path.is_file()
            }
            assert all(path.startswith(('a.zip', 'data/inner/')) for path in written), written

    return Case(f'data: {name}', sentence, do, code)


def whole(content, *headers):
    """An answer of some bytes, with other headers than their length if there are some."""
    lines = headers or (b'Content-Length: %d' % len(content),)
    start = OK + b'\r\n'.join(lines) + b'\r\n\r\n'
    return lambda head: [start] if head else [start, content]


def waiting(*parts):
    """An answer after which nothing more comes, but the connection stays."""

    def answer(head):
        yield from parts
        time.sleep(5)

    return answer


def dripping(start):
    """An answer that comes byte by byte."""

    def answer(head):
        yield start
        while not head:
            yield b'x'
            time.sleep(0.1)

    return answer


def endless(start, part):
    """An answer without an end."""

    def answer(head):
        yield start
        while not head:
            yield part

    return answer


def flip(content):
    """Another content of the same length."""
    content = bytearray(content)
    content[40] ^= 255
    return bytes(content)


def encrypted():
    content = bytearray(zipped(a='a'))
    content[6] |= 1
    content[content.index(b'PK\1\2') + 8] |= 1
    return bytes(content)


BROKEN = 'cannot be downloaded .*: download it elsewhere'
LENGTH = b'Content-Length: 1000'
HUGE = b'Content-Length: ' + b'9' * 18
MOVED = b'HTTP/1.1 302 Found\r\n'
CHUNK = b'ffff\r\n' + b'x' * 65535 + b'\r\n'
CHUNKED = OK + b'Transfer-Encoding: chunked\r\n\r\n'
CASES = [
    fetched('whole', '', whole(checkpoint()), code=0),
    fetched('in chunks', '', lambda head: [
        CHUNKED, b'%x\r\n%b\r\n0\r\n\r\n' % (len(checkpoint()), checkpoint())], code=0),
    fetched('silent', BROKEN, waiting()),
    fetched('silent after its headers', BROKEN, waiting(OK + LENGTH + b'\r\n\r\n')),
    fetched('silent in the middle', BROKEN, waiting(OK + LENGTH + b'\r\n\r\nabc')),
    fetched('byte by byte', BROKEN, dripping(OK + LENGTH + b'\r\n\r\n')),
    fetched('broken off', 'bytes came of|cannot be downloaded', whole(b'abc', LENGTH)),
    fetched('a chunk that is broken off', BROKEN, lambda head: [CHUNKED, b'ff\r\nabc']),
    fetched('without its length', 'does not say how large', whole(checkpoint(), b'X: a')),
    fetched('a length of text', 'does not say how large', whole(b'', b'Content-Length: many')),
    fetched('a length below 0', 'does not say how large', whole(b'', b'Content-Length: -1')),
    fetched('a length of 5,000 digits', BROKEN, whole(b'', b'Content-Length: ' + b'9' * 5000)),
    fetched('a length of 10^18', 'for which the disk has no room', whole(b'', HUGE)),
    fetched('headers without an end', BROKEN, endless(OK, b'X: a\r\n')),
    fetched('a header without an end', BROKEN, endless(OK + b'X: ', b'a' * 65536)),
    fetched('no HTTP', BROKEN, lambda head: [b'\0' * 999]),
    fetched('a reason that moves the cursor', r'\\x1b',
            lambda head: [b'HTTP/1.1 404 \x1b[2J\r\n\r\n']),
    fetched('a way to itself', 'infinite loop|cannot be downloaded',
            lambda head: [MOVED + b'Location: /model.pth\r\nContent-Length: 0\r\n\r\n']),
    fetched('a way to a file', BROKEN,
            lambda head: [MOVED + b'Location: file:///etc/passwd\r\n\r\n']),
    fetched('another content than its name says', 'not that which its name has the hash of',
            whole(checkpoint()), file='model-0123abcd.pth'),
    fetched('a page that is no checkpoint', 'is not a checkpoint of torch', whole(b'<html>')),
    downloaded('silent', 'cannot be reached', waiting()),
    downloaded('without its length', 'does not say how large', whole(b'', b'X: a')),
    downloaded('a length of 5,000 digits', 'does not say how large|disk has',
               whole(b'', b'Content-Length: ' + b'9' * 5000)),
    downloaded('a length of 10^18', 'but the disk has', whole(b'', HUGE)),
    downloaded('broken off again and again', 'broke off at', whole(b'', LENGTH)),
    downloaded('without an end', 'bytes came, but it has 1,000',
               lambda head: whole(b'', LENGTH)(True) if head else endless(CHUNKED, CHUNK)(False)),
    downloaded('byte by byte', 'broke off at', dripping(OK + LENGTH + b'\r\n\r\n')),
    downloaded('no archive', 'is damaged', whole(b'<html>')),
    unpacked('damaged', 'is damaged or encrypted', lambda: flip(zipped(a='a' * 99))),
    unpacked('encrypted', 'is damaged or encrypted', encrypted),
    unpacked('truncated', 'is damaged or encrypted', lambda: zipped(a='a' * 99)[:-30]),
    *(
        unpacked(f'a name such as {name!r}', 'would write outside',
                 lambda name=name: zipped(**{name: 'a'}))
        for name in ('../a', '/a', 'a/../../../b', '..\\a', 'a\\..\\b')
    ),
    unpacked('a member that says 2 GB', 'is damaged', lambda: zipped(a='a' * 9).replace(
        (9).to_bytes(4, 'little') * 2, (1 << 31).to_bytes(4, 'little') * 2)),
    unpacked('a file in the place of a folder', 'File exists|Not a directory',
             lambda: zipped(**{'a/b': 'x'}),
             lambda place: place.write('data/inner/a', 'mine')),
    unpacked('one that is there, with another content', '', lambda: zipped(a='new'),
             lambda place: place.write('data/inner/a', 'old'), code=0),
]  # fmt: skip
