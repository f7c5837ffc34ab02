"""What visitors of the page send to its server."""

import io
import socket
import threading

import numpy as np
from bad_input.attacks.datasets import blank, bomb, chunk, png
from PIL import Image

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.visualization import page

from helpers.bad_input import Case
from helpers.detectors import save_coordinates, save_detector

ME = '/scenes/' + '0' * 32
NO_IMAGE = '^400 the file is no image of BMP, JPEG, PNG, WEBP, or broken'


def prepare(folder):
    """The models, which all of the attacks look at."""
    image = str(save_coordinates(folder / 'a.png', 96, 64))
    return page.Explorer({'lesa': load_model(*save_detector(folder, dict(type='LESA')))}), image


def serve(prepared):
    """The port of a server in a thread."""
    explorer, image = prepared
    listener = page.listen('127.0.0.1', 0)
    names = page.own_names('127.0.0.1', listener)
    shown = page.Page(explorer, [image, '/\udcff.png'], 0.3, names)
    server = page.uvicorn.Server(page.uvicorn_config(shown.app))
    server.install_signal_handlers = lambda: None
    threading.Thread(target=server.run, kwargs=dict(sockets=[listener]), daemon=True).start()
    return listener.getsockname()[1]


def answer_to(port, request):
    """Status and text of the answer to some bytes."""
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.settimeout(20)
        received = b''
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                received += part
        except ConnectionError:
            pass
    head, _, body = received.partition(b'\r\n\r\n')
    return int(head.split()[1]), body.decode('utf-8', 'backslashreplace')


def asked(name, sentence, request, code=1):
    """A case of a request: its bytes, in which {host} stands for the server's name."""

    def do(place, prepared):
        port = serve(prepared)
        host = f'127.0.0.1:{port}'
        content = request() if callable(request) else request
        status, body = answer_to(port, content.replace(b'{host}', host.encode()))
        own = f'GET /settings HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n'
        assert answer_to(port, own.encode())[0] == 200  # others are still answered
        if status >= 400:
            raise UserValueError(f'{status} {" ".join(body.split())}')
        print(status, body[:300])

    return Case(name, sentence, do, code)


def get(path, *headers, method='GET', host='{host}'):
    lines = f'{method} {path} HTTP/1.1', f'Host: {host}', 'Connection: close', *headers
    return '\r\n'.join((*lines, '', '')).encode()


def put(content, *headers, path=ME):
    headers = ('Origin: http://{host}', f'Content-Length: {len(content)}', *headers)
    return get(path, *headers, method='PUT') + content


def encoded(kind, mode='RGB', size=(60, 40), **options):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def uploaded(name, sentence, content, code=1):
    """A case of an upload."""
    request = (lambda: put(content())) if callable(content) else put(content)
    return asked(f'an image: {name}', sentence, request, code)


def turned(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


CASES = [
    *(
        asked(f'the name {host!r}', '^421 this server has another', get('/settings', host=host))
        for host in ('evil.com', 'evil.com:7860', '127.0.0.1.evil.com', '127.0.0.1@evil.com',
                     'localhost.', '[::1]', '0.0.0.0', '2130706433', '127.1', '127.0.0.1,evil.com',
                     '127.0.0.1 evil', '')
    ),
    *(asked(f'the name {host!r}', '', get('/settings', host=host), 0)
      for host in ('LOCALHOST', 'localhost:1', '127.0.0.1')),
    asked('another name in a header that is forwarded', '^421',
          get('/settings', 'X-Forwarded-Host: 127.0.0.1', host='evil.com')),
    asked('a name of an address', '^404', get('http://evil.com/settings')),
    *(
        asked(f'of {origin!r}', '^403 only the page itself',
              get(f'{ME}?image=0', f'Origin: {origin}', method='PUT'))
        for origin in ('http://evil.com', 'null', 'http://127.0.0.1', 'http://{host}.evil.com',
                       'file://', 'http://evil.com/{host}')
    ),
    asked('of nobody', '^403', get(f'{ME}?image=0', method='PUT')),
    asked('of another page, to look', '^403', get('/settings', 'Origin: http://evil.com')),
    *(
        asked(f'the path {path!r}', '^404', get(path))
        for path in ('/../page.py', '/%2e%2e/page.py', '/..%2f..%2fpage.py', '//etc/passwd',
                     '/..%5cpage.py', '/page.js%00', '/scenes/../settings', '/settings/',
                     '/scenes/' + 'A' * 32 + '/image', '/' + 'a' * 9000)
    ),
    *(asked(method, '^405', get('/settings', 'Origin: http://{host}', method=method))
      for method in ('POST', 'PATCH', 'OPTIONS', 'TRACE', 'CONNECT', 'get')),
    asked('an image below 0', r'no image -1', put(b'', path=f'{ME}?image=-1')),
    asked('an image of 5,000 digits', 'no image 9+', put(b'', path=f'{ME}?image=' + '9' * 5000)),
    asked('an image that moves the cursor', r'no image \\x1b', put(b'', path=f'{ME}?image=%1b[2J')),
    asked('an image without a name', r'\\udcff.png is gone', put(b'', path=f'{ME}?image=1')),
    asked('a websocket', '^403|^400',
          get('/settings', 'Upgrade: websocket', 'Origin: http://evil.com')),
    asked('a header without an end', '^400', get('/settings', 'X: ' + 'a' * 200_000)),
    asked('20,000 headers', '^400', get('/settings', *(f'X{i}: a' for i in range(20_000)))),
    asked('two names', '^400', get('/settings', 'Host: evil.com')),
    asked('no name', '^400', b'GET /settings HTTP/1.1\r\n\r\n'),
    asked('no HTTP', '^400', b'\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03' + b'x' * 99),
    asked('a length below 0', '^400', get(ME, 'Content-Length: -1', method='PUT')),
    asked('two lengths', '^400', put(b'abc', 'Content-Length: 4')),
    asked('a broken chunk', '^400', get(ME, 'Origin: http://{host}', 'Transfer-Encoding: chunked',
                                        method='PUT') + b'zz\r\nabc\r\n'),
    asked('21 MB', '^413 at most', lambda: put(bytes(21 << 20))),
    uploaded('3 x 40,000', '^400 the image has 3 x 40000 pixels', blank(3, 40_000)),
    uploaded('40,000 x 3', '^400 the image has 40000 x 3 pixels', blank(40_000, 3)),
    uploaded('17 billion pixels', NO_IMAGE, png(131_072, 131_072, b'')),
    uploaded('100 million pixels', '^400 the image has 10000 x 10000',
             lambda: blank(10_000, 10_000)),
    *(uploaded(f'300 MB of {kind}', NO_IMAGE,
               lambda kind=kind: png(9, 9, b'', chunk(kind.encode(), b'a\0\0' + bomb())))
      for kind in ('zTXt', 'iCCP')),
    uploaded('300 MB in 81 pixels', '', lambda: png(9, 9, bomb()), 0),
    uploaded('nothing', NO_IMAGE, b''),
    uploaded('truncated', NO_IMAGE, lambda: encoded('JPEG')[:-200]),
    *(uploaded(kind, NO_IMAGE, lambda kind=kind: encoded(kind))
      for kind in ('GIF', 'TIFF', 'ICO', 'PPM')),
    uploaded('SVG', NO_IMAGE, b'<svg onload="alert(1)"/>'),
    *(uploaded(f'{kind} {mode}', '', lambda kind=kind, mode=mode: encoded(kind, mode), 0)
      for kind, mode in (('JPEG', 'CMYK'), ('JPEG', 'L'), ('PNG', 'P'), ('PNG', '1'), ('PNG', 'LA'),
                         ('PNG', 'I;16'), ('WEBP', 'RGBA'), ('BMP', 'RGB'))),
    *(uploaded(f'turned by {turn}', '', lambda turn=turn: encoded('JPEG', exif=turned(turn)), 0)
      for turn in (0, 6, 9, 65535)),
    uploaded('of 60 frames', '', lambda: encoded(
        'WEBP', save_all=True, append_images=[Image.new('RGB', (60, 40))] * 60), 0),
    uploaded('12 million pixels', '', lambda: encoded('JPEG', size=(4000, 3000)), 0),
]  # fmt: skip
