"""The page's server without a browser: what it answers, to whom, and whom it asks."""

import http.client
import json
import os
import runpy
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.errors import UserFileNotFoundError, UserValueError

from helpers.detectors import run_main, save_coordinates, save_detector
from helpers.paths import ROOT

page = pytest.importorskip(
    'lesa_mmdet.visualization.page', reason='starlette or uvicorn is missing', exc_type=ImportError
)
TOOL = runpy.run_path(str(ROOT / 'tools' / 'explore.py'))
ME, OTHER = '0' * 32, 'f' * 32


@pytest.fixture(scope='module')
def explorer(tmp_path_factory):
    detector = save_detector(tmp_path_factory.mktemp('detector'), dict(type='LESA'))
    return page.Explorer({'lesa': load_model(*detector)})


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    return [str(save_coordinates(folder / f'{name}.png', 96, 64)) for name in 'ab']


@pytest.fixture
def serve(explorer, images):
    """Runs the server in a thread: (page, ask)."""
    stops = []

    def start(host='127.0.0.1'):
        listener = page.listen(host, 0)
        server_page = page.Page(explorer, images, 0.3, page.own_names(host, listener))
        server = page.uvicorn.Server(page.uvicorn_config(server_page.app))
        server.install_signal_handlers = lambda: None
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listener]))
        thread.start()
        port = listener.getsockname()[1]

        def ask(method, path, body=None, host=None, **headers):
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
            own = f'127.0.0.1:{port}'
            headers = {'Host': own if host is None else host.format(port=port), **headers}
            if method not in ('GET', 'HEAD') and 'Origin' not in headers:
                headers['Origin'] = f'http://{own}'
            connection.request(method, path, body, {k: v for k, v in headers.items() if v})
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            return SimpleNamespace(status=answer.status, body=text, headers=answer.headers)

        ask.own = f'127.0.0.1:{port}'
        stops.append((server, thread))
        return server_page, ask

    yield start
    for server, thread in stops:
        server.should_exit = True
        thread.join()


def test_a_visit(serve, images):
    server, ask = serve()
    assert b'<title>' in ask('GET', '/').body
    settings = json.loads(ask('GET', '/settings').body)
    assert settings['images'] == ['a.png', 'b.png'] and settings['layer'] == 'layer3.5'
    opened = json.loads(ask('PUT', f'/scenes/{ME}?image=1').body)
    assert opened['size'] == [96, 64] and len(opened['point']) == 2
    assert ask('GET', f'/scenes/{ME}/image').body.startswith(b'\xff\xd8')
    looked = ask('GET', f'/scenes/{ME}/look?layer=layer3.5&x=5&y=6')
    assert looked.status == 200 and len(json.loads(looked.body)[0]['heats']) == 10
    with open(images[0], 'rb') as file:
        assert ask('PUT', f'/scenes/{ME}', file.read()).status == 200
    assert len(server.scenes) == 1  # in place of the one before
    for path in ('image', 'look?layer=layer3.5&x=5&y=6'):
        gone = ask('GET', f'/scenes/{OTHER}/{path}')
        assert gone.status == 410 and b'choose it again' in gone.body
    assert ask('DELETE', f'/scenes/{ME}').status == 204 and len(server.scenes) == 0


def test_refusals_are_sentences(serve, images):
    _, ask = serve()
    ask('PUT', f'/scenes/{ME}?image=0')
    png = open(images[0], 'rb').read()
    for method, path, body, status, said in (
        ('PUT', f'/scenes/{ME}', b'no image', 400, 'no image of BMP, JPEG, PNG, WEBP, or broken'),
        ('PUT', f'/scenes/{ME}', png[:60], 400, 'or broken'),
        ('PUT', f'/scenes/{ME}', bytes(page.MAX_BYTES + 1), 413, 'at most 20971520 bytes'),
        ('PUT', f'/scenes/{ME}?image=2', None, 400, 'there is no image 2: there are 2'),
        ('PUT', f'/scenes/{ME}?image=http://example.org', None, 400, 'there is no image http'),
        ('PUT', f'/scenes/{ME}?image=-1', None, 400, 'there is no image -1'),
        ('PUT', '/scenes/../../etc', None, 405, ''),
        ('PUT', f'/scenes/{ME[1:]}g', None, 404, ''),
        ('GET', f'/scenes/{ME}/look?layer=layer3.5', None, 400, 'x and y are needed'),
        ('GET', f'/scenes/{ME}/look?layer=layer3.5&x=nan&y=1e9', None, 400, 'whole numbers'),
        ('GET', f'/scenes/{ME}/look?layer=layer3.5&x=96&y=0', None, 400, 'outside the image'),
        ('GET', f'/scenes/{ME}/look?layer=<b>&x=9&y=0', None, 400, 'no layer <b>: layer3.1'),
        ('GET', f'/scenes/{ME}/look?layer=%1b[2J&x=9&y=0', None, 400, r'no layer \x1b[2J: layer'),
        ('GET', f'/scenes/{ME}/look?layer=layer3.5&x={"9" * 5000}&y=0', None, 400, 'whole numbers'),
        ('PUT', f'/scenes/{ME}?image={"9" * 5000}', None, 400, 'there is no image 999'),
        ('PUT', f'/scenes/{ME}?image=%1b[2J%0aerror', None, 400, r'no image \x1b[2J\nerror: there'),
        ('PUT', f'/scenes/{ME}?image=%D9%A1', None, 400, 'there is no image'),
        ('GET', '/../page.py', None, 404, ''),
        ('GET', '/%2e%2e/page.py', None, 404, ''),
        ('GET', '//etc/passwd', None, 404, ''),
        ('POST', '/', b'', 405, ''),
    ):
        answer = ask(method, path, body)
        assert answer.status == status, (path, answer.status, answer.body)
        assert said in answer.body.decode() and '/tmp' not in answer.body.decode()
        assert answer.status != 400 or answer.headers['content-type'].startswith('text/plain')


def test_visitors_of_one_image_share_what_models_computed(serve, explorer, monkeypatch):
    server, ask = serve()
    for visitor in (ME, OTHER):
        assert ask('PUT', f'/scenes/{visitor}?image=0').status == 200
    assert server.scenes.get(ME) is server.scenes.get(OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(explorer, 'open', lambda _: pytest.fail('the models ran again'))
        assert ask('PUT', f'/scenes/{ME}?image=0').status == 200
    for visitor in (ME, OTHER):
        ask('DELETE', f'/scenes/{visitor}')
    deadline = time.monotonic() + 30
    while server._of_list and time.monotonic() < deadline:  # threads let go of it after they answer
        time.sleep(0.05)
    assert not server._of_list


def test_a_listed_image_that_is_gone_is_named_without_its_folder(explorer, tmp_path):
    listed = page.Page(explorer, [str(tmp_path / 'gone.png')], 0.3, [])
    with pytest.raises(UserValueError, match='^gone.png is gone, or no image$'):
        listed._open_listed(0)


def test_images_at_addresses_are_not_fetched(explorer):
    with pytest.raises(UserValueError, match='fetches nothing: download https://example.org/a.png'):
        page.serve({}, ['https://example.org/a.png'])


def test_a_bug_is_not_shown_to_visitors(serve, explorer, monkeypatch):
    _, ask = serve()
    ask('PUT', f'/scenes/{ME}?image=0')
    monkeypatch.setattr(explorer, 'look', lambda *_: 1 / 0)
    answer = ask('GET', f'/scenes/{ME}/look?layer=layer3.5&x=5&y=6')
    assert answer.status == 500 and b'terminal' in answer.body and b'Zero' not in answer.body


@pytest.mark.parametrize(
    ('host', 'status'),
    [
        ('127.0.0.1:{port}', 200),
        ('localhost:{port}', 200),
        ('LOCALHOST:8888', 200),  # as through a tunnel
        ('127.0.0.1', 200),
        ('evil.example:{port}', 421),
        ('127.0.0.1.evil.example:{port}', 421),
        ('localhost.evil.example', 421),
        ('evil.example@127.0.0.1:{port}', 421),
        ('127.0.0.1:{port}@evil.example', 421),
        ('192.168.0.1:{port}', 421),
        ('[::ffff:7f00:1]:{port}', 421),
        ('127.0.0.1:{port}/x', 421),
    ],
)
def test_only_its_own_names_are_answered(serve, host, status):
    _, ask = serve()
    for path in ('/', '/page.js', '/settings'):
        assert ask('GET', path, host=host).status == status, path
    assert ask('GET', f'/scenes/{ME}/image', host=host).status == (410 if status == 200 else 421)


def test_a_request_without_a_name_is_refused(serve):
    server, _ = serve()
    messages = []

    async def send(message):
        messages.append(message)

    scope = dict(
        type='http', method='GET', path='/', headers=[], query_string=b'', root_path='',
        http_version='1.0', scheme='http', server=None, client=None,
    )  # fmt: skip
    page.anyio.run(server.app, scope, None, send)
    assert messages[0]['status'] == 421


def test_served_to_a_network_it_takes_addresses_and_no_foreign_name(serve):
    _, ask = serve('0.0.0.0')
    for host, status in (
        ('192.168.0.1:80', 200),
        ('[fe80::1]:80', 200),
        (socket.gethostname(), 200),
        ('evil.example', 421),
        ('1.2.3.4.evil.example', 421),
        ('*', 421),
    ):
        assert ask('GET', '/', host=host).status == status, host


@pytest.mark.parametrize(
    'origin',
    [None, 'null', 'http://evil.example', 'http://127.0.0.1', 'http://127.0.0.1:1', 'file://'],
)
def test_only_the_page_itself_changes_anything(serve, origin):
    server, ask = serve()
    ask('PUT', f'/scenes/{ME}?image=0')
    for method, path in (('PUT', f'/scenes/{OTHER}?image=0'), ('DELETE', f'/scenes/{ME}')):
        assert ask(method, path, Origin=origin).status == 403, (method, origin)
    assert len(server.scenes) == 1
    assert ask('GET', '/settings', Origin=origin).status == (403 if origin else 200)


def test_browsers_are_told_to_load_from_here_alone(serve):
    _, ask = serve()
    for path in ('/', '/page.js', '/settings', '/none', f'/scenes/{ME}/image'):
        headers = ask('GET', path).headers
        assert "default-src 'none'" in headers['content-security-policy']
        assert headers['x-content-type-options'] == 'nosniff'
    files = {path.name: path.read_text('utf-8') for path in page.WEB.iterdir()}
    assert set(files) == {'index.html', 'page.css', 'page.js'}
    for name, text in files.items():
        addresses = text.replace('http://www.w3.org/2000/svg', '')
        assert '//' not in addresses.replace('// ', ''), name
        assert ' style=' not in text and 'innerHTML' not in text


def test_no_request_leaves_the_machine(serve, monkeypatch):
    """Over all routes that the server has, with addresses wherever something can be said."""
    server, ask = serve()
    asked = []

    def guard(function, host_of):
        def guarded(*arguments, **options):
            host = host_of(*arguments)
            if host not in (None, '', '127.0.0.1', '0.0.0.0'):
                asked.append(host)
                raise OSError(f'{host} was asked')
            return function(*arguments, **options)

        return guarded

    for name in ('connect', 'connect_ex'):
        monkeypatch.setattr(
            socket.socket, name, guard(getattr(socket.socket, name), lambda _, a: a[0])
        )
    monkeypatch.setattr(socket, 'getaddrinfo', guard(socket.getaddrinfo, lambda host, *_: host))
    outside = 'http://example.org/a.png'
    called = set()
    for route in server.app.routes:
        for method in getattr(route, 'methods', None) or ('GET', 'HEAD'):
            for visitor in (ME, 'http%3A%2F%2Fexample.org', outside):
                path = route.path.replace('{visitor}', visitor) or '/'
                for extra in (
                    '',
                    f'?image={outside}',
                    f'?layer={outside}&x={outside}&y=1',
                    outside,
                ):
                    ask(method, path + extra, outside.encode(), Referer=outside, Cookie=outside)
                    called.add((method, route.path))
    # What gradio had: nobody answers there any more.
    for path in ('run-history/connect', 'runs', f'file={outside}', f'proxy={outside}', 'upload'):
        for method in ('GET', 'POST'):
            assert ask(method, f'/gradio_api/{path}', b'{}').status in (404, 405)
    assert len(called) == 10 and not asked, asked


def test_a_slow_upload_does_not_hold_up_clicks(serve, explorer, monkeypatch):
    _, ask = serve()
    ask('PUT', f'/scenes/{ME}?image=0')
    started, go_on, open_ = threading.Event(), threading.Event(), explorer.open

    def slow(pixels):
        started.set()
        go_on.wait(60)
        return open_(pixels)

    monkeypatch.setattr(explorer, 'open', slow)
    uploads = [
        threading.Thread(target=ask, args=('PUT', f'/scenes/{index:032x}?image=1'))
        for index in range(1, 60)  # more than there are threads for clicks
    ]
    for upload in uploads:
        upload.start()
    assert started.wait(30)
    begun = time.monotonic()
    assert ask('GET', f'/scenes/{ME}/look?layer=layer3.5&x=5&y=6').status == 200
    assert time.monotonic() - begun < 5
    monkeypatch.setattr(explorer, 'open', open_)
    go_on.set()
    for upload in uploads:
        upload.join()


def test_uploads_that_arrive_at_once_are_bounded(serve, monkeypatch):
    monkeypatch.setattr(page, 'MAX_ARRIVING', 1000)
    server, ask = serve()
    answer = ask('PUT', f'/scenes/{ME}', bytes(1001))
    assert answer.status == 503 and b'try again' in answer.body
    assert server._arriving == 0
    assert ask('PUT', f'/scenes/{ME}', bytes(900)).status == 400  # no image, but taken


def test_uploads_that_wait_to_be_decoded_or_seen_are_bounded(serve, explorer, images, monkeypatch):
    png = open(images[0], 'rb').read()
    monkeypatch.setattr(page, 'MAX_ARRIVING', 3 * len(png))
    monkeypatch.setattr(page, 'MAX_WAITING', 2)
    server, ask = serve()
    for owner, name in ((page, 'read_upload'), (explorer, 'open')):
        go_on, function, statuses = threading.Event(), getattr(owner, name), []

        def slow(argument, go_on=go_on, function=function):
            go_on.wait(60)
            return function(argument)

        def send(index, statuses=statuses):
            statuses.append(ask('PUT', f'/scenes/{index:032x}', png).status)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, slow)
            uploads = [threading.Thread(target=send, args=(index,)) for index in range(6)]
            for upload in uploads:
                upload.start()
            deadline = time.monotonic() + 30
            while len(statuses) < 3 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert statuses == [503] * 3, name  # at once, while three are worked on or wait
            go_on.set()
            for upload in uploads:
                upload.join()
        assert sorted(statuses) == [200] * 3 + [503] * 3 and server._arriving == 0


def test_an_upload_may_not_take_for_ever(serve, monkeypatch):
    monkeypatch.setattr(page, 'UPLOAD_TIME', 0.3)
    _, ask = serve()

    def dripping():
        for _ in range(5):
            yield b'x'
            time.sleep(0.2)

    assert ask('PUT', f'/scenes/{ME}', dripping(), **{'Content-Length': '5'}).status == 408


def test_a_connection_may_not_wait_for_ever(serve, monkeypatch):
    """Of those who send nothing, dribble headers, or dribble what nobody reads."""
    monkeypatch.setattr(page, 'IDLE_TIME', 0.5)
    monkeypatch.setattr(page, 'LOOK_TIME', 0.1)
    _, ask = serve()
    host = ask('GET', '/settings').status and ask.own
    whole = f'GET /settings HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9999\r\n\r\n'
    for begin in ('', 'GET / HTTP/1.1\r\nX: ', whole):
        with socket.create_connection(('127.0.0.1', int(host.split(':')[1]))) as connection:
            connection.settimeout(0.1)
            connection.sendall(begin.encode())
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    if begin:
                        connection.sendall(b'x')
                    if not connection.recv(4096):
                        break
                except TimeoutError:
                    pass
                except ConnectionError:
                    break
            else:
                pytest.fail(f'{begin!r} is waited for')
    assert ask('GET', '/settings').status == 200


def test_names_of_files_and_models_are_escaped(serve, monkeypatch):
    server, ask = serve()
    server._images = ['/a/\udcff.png', '/a/x\u202egpj.png', '/a/b\n\x1b[2J.png']
    monkeypatch.setattr(server._explorer, 'titles', ['\udcff \u202e'])
    settings = json.loads(ask('GET', '/settings').body)
    assert settings['images'] == [r'\udcff.png', r'x\u202egpj.png', r'b\n\x1b[2J.png']
    assert settings['titles'] == [r'\udcff \u202e']
    answer = ask('PUT', f'/scenes/{ME}?image=2')
    assert answer.status == 400 and answer.body == rb'b\n\x1b[2J.png is gone, or no image'


def test_addresses_to_listen_on():
    with page.listen('127.0.0.1', None) as first, page.listen('127.0.0.1', None) as second:
        ports = [listener.getsockname()[1] for listener in (first, second)]
        assert ports[0] < ports[1] and all(port in page.PORTS for port in ports)
        with pytest.raises(UserValueError, match=f'cannot listen on 127.0.0.1, port {ports[0]}: '):
            page.listen('127.0.0.1', ports[0])
    with pytest.raises(UserValueError, match='cannot listen on 127.0.0.1, port 70000: '):
        page.listen('127.0.0.1', 70000)


def test_the_tool_names_what_is_missing(tmp_path, monkeypatch, capsys):
    main = TOOL['main']
    with pytest.raises(SystemExit, match='^error: .*none.py does not exist'):
        run_main(monkeypatch, main, tmp_path / 'none.py', tmp_path / 'none.pth')
    with pytest.raises(SystemExit, match='^2$'):
        run_main(monkeypatch, main, tmp_path / 'none.py')
    assert 'CONFIG and CHECKPOINT are needed' in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, 'lesa_mmdet.visualization.page')
    monkeypatch.setitem(sys.modules, 'uvicorn', None)
    with pytest.raises(SystemExit, match='needs uvicorn, .*: pip install starlette uvicorn'):
        run_main(monkeypatch, main, tmp_path / 'none.py', tmp_path / 'none.pth')


def test_without_arguments_it_opens_on_shapes_that_hide_little(tmp_path, monkeypatch):
    names = [f'shapes_{index:06d}.jpg' for index in (0, 1, 19, 20)]
    for name in names:
        (tmp_path / 'val' / name).parent.mkdir(exist_ok=True)
        (tmp_path / 'val' / name).touch()
    shown, found = [], TOOL['main'].__wrapped__.__globals__
    monkeypatch.setitem(found, 'generate', lambda root: tmp_path)
    monkeypatch.setitem(found, 'find_detector', lambda root: ('a.py', 'a.pth'))
    monkeypatch.setitem(found, 'load_model', lambda *_: None)
    monkeypatch.setattr(page, 'serve', lambda models, images, **_: shown.extend(images))
    run_main(monkeypatch, TOOL['main'])
    assert [os.path.basename(image) for image in shown] == [names[2], names[0], names[1], names[3]]


def test_without_arguments_the_demo_or_else_the_weights(tmp_path):
    find = TOOL['find_detector']
    with pytest.raises(UserFileNotFoundError, match='make demo trains one'):
        find(tmp_path)
    for name in ('weights/ours.pth', 'configs/demo/ours.py', 'configs/demo/other.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find(tmp_path) == (tmp_path / 'configs/demo/ours.py', tmp_path / 'weights/ours.pth')
    demo = tmp_path / 'work_dirs' / 'demo'
    demo.mkdir(parents=True)
    for name in ('epoch_9.pth', 'epoch_10.pth', 'config.py'):
        (demo / name).touch()
    os.utime(demo / 'epoch_10.pth', (0, 0))
    assert find(tmp_path) == (demo / 'config.py', demo / 'epoch_10.pth')
    (demo / 'epoch_of_mine.pth').touch()
    other = tmp_path / 'elsewhere' / 'demo' / 'lesa-3.ckpt'
    other.parent.mkdir(parents=True)
    other.touch()
    (demo / 'last_checkpoint').write_text(str(other), encoding='utf-8')
    with pytest.raises(UserValueError, match='lesa-3.ckpt as the last checkpoint, which is not in'):
        find(tmp_path)
    hook = dict(out_dir=str(tmp_path / 'elsewhere'), filename_tmpl='lesa-{}.ckpt')
    (demo / 'config.py').write_text(f'default_hooks = dict(checkpoint={hook})', encoding='utf-8')
    assert find(tmp_path) == (demo / 'config.py', other)
    (demo / 'last_checkpoint').unlink()
    assert find(tmp_path) == (demo / 'config.py', other)
    (demo / 'config.py').unlink()
    assert find(tmp_path)[1] == tmp_path / 'weights/ours.pth'


def test_models_of_one_name_are_both_shown(tmp_path, monkeypatch):
    detector = save_detector(tmp_path / 'detector', dict(type='LESA'))
    served = []
    monkeypatch.setattr(page, 'serve', lambda models, *_, **__: served.extend(models))
    pairs = ('--models', *detector, '--models', *detector)
    run_main(monkeypatch, TOOL['main'], *pairs, '--device', 'cpu')
    assert served == ['tiny, detector', 'tiny, detector, model 2']
