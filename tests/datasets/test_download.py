"""tools/download_coco.py, against a server on this machine."""

import io
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lesa_mmdet.datasets import download as download_module
from lesa_mmdet.datasets.download import download, unpack


class Server:
    """Serves bytes on this machine, with the faults of servers far away."""

    def __init__(self, files):
        self.files, self.requests = files, []
        self.cut_after, self.ranges = None, True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body):
                name, range_ = self.path.strip('/'), self.headers.get('Range')
                server.requests.append((self.command, name, range_))
                if name not in server.files:
                    return self.send_error(404)
                content = server.files[name]
                start = int(range_[len('bytes=') : -1]) if range_ and server.ranges else 0
                self.send_response(206 if start else 200)
                self.send_header('Content-Length', str(len(content) - start))
                self.end_headers()
                if body:
                    self.wfile.write(content[start:][: server.cut_after])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module.time, 'sleep', lambda seconds: None)
    server = Server({'val2017.zip': zip_of({f'val2017/{i}.jpg': bytes(5000) for i in range(3)})})
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_download_goes_on_where_it_broke_off(server, tmp_path):
    content, path = server.files['val2017.zip'], tmp_path / 'val2017.zip'
    server.cut_after = 4000
    download(f'{server.url}/val2017.zip', path)
    assert path.read_bytes() == content
    starts = [range_ for method, _, range_ in server.requests if method == 'GET']
    assert starts == [None, *(f'bytes={i}-' for i in range(4000, len(content), 4000))]

    server.requests.clear()
    download(f'{server.url}/val2017.zip', path)
    assert [method for method, *_ in server.requests] == ['HEAD']


def test_download_of_an_earlier_run_goes_on(server, tmp_path):
    content, path = server.files['val2017.zip'], tmp_path / 'val2017.zip'
    server.cut_after = 0
    path.with_name('val2017.zip.part').write_bytes(content[:1000])
    with pytest.raises(OSError, match=r'broke off at 1,000 of .* run this again'):
        download(f'{server.url}/val2017.zip', path)
    assert not path.exists()
    server.cut_after = None
    download(f'{server.url}/val2017.zip', path)
    assert path.read_bytes() == content


def test_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    path = tmp_path / 'val2017.zip'
    path.with_name('val2017.zip.part').write_bytes(b'x' * 1000)
    download(f'{server.url}/val2017.zip', path)
    assert path.read_bytes() == server.files['val2017.zip']


def test_download_of_another_size_is_refused(server, tmp_path):
    path = tmp_path / 'val2017.zip'
    part = path.with_name('val2017.zip.part')
    part.write_bytes(bytes(len(server.files['val2017.zip']) + 1))
    with pytest.raises(OSError, match='bytes came, but it has'):
        download(f'{server.url}/val2017.zip', path)
    assert not path.exists() and not part.exists()


def test_download_says_what_is_wrong(server, tmp_path, monkeypatch):
    with pytest.raises(OSError, match='cannot be reached: the server answers 404'):
        download(f'{server.url}/none.zip', tmp_path / 'none.zip')
    full = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(download_module.shutil, 'disk_usage', lambda path: full)
    with pytest.raises(OSError, match='bytes to come, but the disk has 1 left'):
        download(f'{server.url}/val2017.zip', tmp_path / 'val2017.zip')


def test_unpack_goes_on_and_finds_damage(server, tmp_path):
    archive = tmp_path / 'val2017.zip'
    archive.write_bytes(server.files['val2017.zip'])
    (tmp_path / 'val2017').mkdir()
    (tmp_path / 'val2017' / '0.jpg').write_bytes(b'cut')
    (tmp_path / 'val2017' / '1.jpg').write_bytes(b'y' * 5000)
    unpack(archive, tmp_path)
    contents = [(tmp_path / 'val2017' / f'{i}.jpg').read_bytes() for i in range(3)]
    assert contents == [bytes(5000)] * 3  # the cut one, and that of the right size, too
    before = (tmp_path / 'val2017' / '2.jpg').stat().st_mtime_ns
    unpack(archive, tmp_path)
    assert (tmp_path / 'val2017' / '2.jpg').stat().st_mtime_ns == before  # what is whole stays
    archive.write_bytes(archive.read_bytes().replace(bytes(5000), b'z' * 5000))
    with pytest.raises(OSError, match='is damaged .*delete it'):
        unpack(archive, tmp_path / 'other')


@pytest.mark.parametrize(
    'name',
    ['../evil.jpg', 'a/../../evil.jpg', '/tmp/evil.jpg', '..\\\\evil.jpg', 'a\\\\..\\\\..\\\\b'],
)
def test_nothing_is_unpacked_outside_of_the_folder(name, tmp_path):
    archive = tmp_path / 'a.zip'
    archive.write_bytes(zip_of({'good.jpg': b'a', name: b'b'}))
    with pytest.raises(OSError, match='would write outside of .*evil.jpg|outside of .*b: delete'):
        unpack(archive, tmp_path / 'out')
    assert [path.name for path in tmp_path.rglob('*')] == ['a.zip']


def encrypted(content):
    """Bit 0 of the flags, in the member's header and in the archive's list."""
    for magic, place in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
        start = content.index(magic) + place
        content = content[:start] + bytes([content[start] | 1]) + content[start + 1 :]
    return content


@pytest.mark.parametrize(
    'change',
    [
        encrypted,
        lambda content: content.replace(b'a' * 99, b'b' * 99),
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b'PK\3\4', b'PK\3\5'),
        lambda content: b'<html>not found</html>',
        lambda content: b'',
        lambda content: content[:10] + content[-30:],
    ],
)
def test_damaged_and_encrypted_archives(change, tmp_path):
    archive = tmp_path / 'a.zip'
    archive.write_bytes(change(zip_of({'a.jpg': b'a' * 99})))
    with pytest.raises(OSError, match='is damaged or encrypted .*: delete it and run this again'):
        unpack(archive, tmp_path / 'out')


def test_an_archive_that_the_disk_has_no_room_for(tmp_path, monkeypatch):
    archive = tmp_path / 'a.zip'
    archive.write_bytes(zip_of({'a.jpg': bytes(100)}))
    full = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(download_module.shutil, 'disk_usage', lambda path: full)
    with pytest.raises(OSError, match='unpacks to 100 bytes, but the disk has 1 left'):
        unpack(archive, tmp_path / 'out')


@pytest.mark.parametrize('length', ['many', '-5', '1e9', '', '٣', '5, 5', '0x10'])
def test_a_length_that_is_no_number(length, server, tmp_path, monkeypatch):
    class Answer:
        headers = {'Content-Length': length}
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

    monkeypatch.setattr(download_module, 'urlopen', lambda *_, **__: Answer())
    with pytest.raises(OSError, match='the server does not say how large it is'):
        download(f'{server.url}/val2017.zip', tmp_path / 'val2017.zip')


def test_tool_fetches_unpacks_and_remembers(server, run, tmp_path):
    server.files['stuffthingmaps_trainval2017.zip'] = zip_of({'val2017/0.png': b'png'})
    command = ['tools/download_coco.py', tmp_path, '--mirror', server.url, '--parts']
    size = len(server.files['val2017.zip'])
    out = run(*command, 'val', 'stuff', '--dry-run')
    assert f'{size:,} of {size:,} bytes, images of val2017: {server.url}/val2017.zip' in out
    assert not any(tmp_path.iterdir())

    # The server has no train2017.
    out = run(*command, 'val', 'stuff', 'train', '--delete-archives', succeeds=False)
    assert out.splitlines()[-1].startswith('error: ') and 'answers 404' in out
    assert (tmp_path / 'val2017' / '2.jpg').stat().st_size == 5000
    assert (tmp_path / 'stuffthingmaps' / 'val2017' / '0.png').read_bytes() == b'png'
    assert not list(tmp_path.rglob('*.zip'))

    server.requests.clear()
    out = run(*command, 'val', 'stuff')
    assert out.count('there already') == 2 and 'tools/check_dataset.py' in out
    assert not server.requests
