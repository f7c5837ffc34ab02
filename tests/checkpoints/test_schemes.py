"""Wherever a checkpoint comes from, nothing of it is executed."""

import hashlib
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.runner import CheckpointLoader, load_checkpoint

from lesa_mmdet.checkpoints import schemes
from lesa_mmdet.utils import transfer

from helpers import pickles


class Quiet(SimpleHTTPRequestHandler):
    """Serves files; what a path begins with may say how to go wrong."""

    def do_GET(self):
        kind, _, name = self.path[1:].partition('/')
        if not name or not hasattr(self, kind):
            return super().do_GET()
        content = (Path(self.directory) / 'file.pth').read_bytes()
        getattr(self, kind)(content)

    def answer(self, content, **headers):
        self.send_response(200)
        for header, value in headers.items():
            self.send_header(header.replace('_', '-'), value)
        self.end_headers()
        self.wfile.write(content)

    def broken(self, content):
        self.answer(content[:-50], Content_Length=len(content))

    def silent(self, content):
        time.sleep(5)

    def stalled(self, content):
        self.answer(content[:50], Content_Length=len(content))
        self.wfile.flush()
        time.sleep(5)

    def unsaid(self, content):
        self.answer(content)

    def odd(self, content):
        self.answer(content, Content_Length='many')

    def huge(self, content):
        self.answer(content, Content_Length=10**18)

    def chunked(self, content):
        chunk = b'%x\r\n%b\r\n' % (len(content), content)
        self.answer(chunk + b'0\r\n\r\n', Transfer_Encoding='chunked')

    def cut(self, content):
        chunk = b'%x\r\n%b' % (len(content), content[:-9])
        self.answer(chunk, Transfer_Encoding='chunked')

    def error(self, content):
        self.send_error(500, 'no \x1b[2J')

    def other(self, content):
        self.answer(content, Content_Length=len(content))

    protocol_version = 'HTTP/1.1'
    close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder on a web server, which is where all names of models lead."""
    folder = tmp_path / 'served'
    folder.mkdir()
    httpd = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{httpd.server_port}/file.pth'
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(folder))
    for models in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        urls = {'model': url, 'local': 'file.pth'}
        monkeypatch.setattr(schemes.mmengine_checkpoint, models, lambda urls=urls: urls)
    deprecated = {'old': 'model'}
    monkeypatch.setattr(
        schemes.mmengine_checkpoint, 'get_deprecated_model_names', lambda: deprecated
    )

    class Store(LocalBackend):
        def get_local_path(self, filepath):
            return super().get_local_path(folder / 'file.pth')

    monkeypatch.setattr(schemes, 'get_file_backend', lambda *_, **__: Store())
    yield folder, url
    httpd.shutdown()
    httpd.server_close()


def names(url):
    return [
        url,
        'torchvision://model',
        'modelzoo://model',
        'open-mmlab://model',
        'openmmlab://old',
        'openmmlab://local',
        'mmcls://model',
        's3://bucket/file.pth',
        'petrel://bucket/file.pth',
    ]


def test_every_name_is_read(server):
    folder, url = server
    torch.save({'state_dict': {'backbone.weight': torch.ones(2)}}, folder / 'file.pth')
    for name in names(url):
        state = CheckpointLoader.load_checkpoint(name, map_location='cpu')['state_dict']
        key = 'weight' if name.startswith('mmcls') else 'backbone.weight'
        assert torch.equal(state[key], torch.ones(2)), name


def test_no_name_executes(server, tmp_path, monkeypatch):
    folder, url = server
    monkeypatch.chdir(tmp_path)
    pickles.write(folder / 'file.pth', pickles.DANGEROUS[1])
    for name in [*names(url), str(folder / 'file.pth')]:
        with pytest.raises(ValueError, match='file.pth is refused.*posix.system'):
            load_checkpoint(torch.nn.Linear(1, 1), name)
    assert not (tmp_path / 'executed').exists()


def test_every_scheme_of_mmengine_is_ours():
    for loader in CheckpointLoader._schemes.values():
        assert loader.__module__ == schemes.__name__


def test_unknown_name_and_no_connection(server):
    _, url = server
    with pytest.raises(ValueError, match="torchvision has no model 'resnet5000'"):
        CheckpointLoader.load_checkpoint('torchvision://resnet5000')
    with pytest.raises(ValueError, match='cannot be downloaded .*404.*put it to'):
        CheckpointLoader.load_checkpoint(url.replace('file', 'gone'))
    with pytest.raises(ValueError, match='pavi://x: download it'):
        CheckpointLoader.load_checkpoint('pavi://x')


class TestDownload:
    """What is downloaded is complete, and of its own address."""

    @pytest.fixture
    def load(self, server, monkeypatch):
        folder, url = server
        torch.save({'state_dict': {'weight': torch.ones(2)}}, folder / 'file.pth')
        monkeypatch.setattr(transfer, 'TIMEOUT', 0.3)

        def load(path):
            address = url.replace('file.pth', path)
            return CheckpointLoader.load_checkpoint(address, map_location='cpu')['state_dict']

        return load

    @pytest.mark.parametrize(
        'kind, reason',
        [
            ('broken', r'bytes came of'),
            ('silent', 'timed out'),
            ('stalled', 'timed out'),
            ('unsaid', 'does not say how large it is'),
            ('odd', 'does not say how large it is'),
            ('huge', 'the disk has no room'),
            ('cut', 'IncompleteRead'),
            ('error', r'HTTP Error 500: no \\x1b\[2J'),
        ],
    )
    def test_what_is_not_complete_is_not_kept(self, kind, reason, load, tmp_path):
        with pytest.raises(ValueError, match=f'cannot be downloaded .*{reason}.*put it to'):
            load(f'{kind}/file.pth')
        assert list((tmp_path / 'torch' / 'hub' / 'checkpoints').iterdir()) == []

    def test_a_length_may_come_in_chunks(self, load):
        assert load('chunked/file.pth')['weight'].tolist() == [1, 1]

    def test_two_addresses_of_one_name_are_two_files(self, load, server, tmp_path):
        folder, _ = server
        assert load('file.pth')['weight'].tolist() == [1, 1]
        torch.save({'state_dict': {'weight': torch.zeros(2)}}, folder / 'file.pth')
        for path in ('other/file.pth', 'file.pth?version=2'):
            assert load(path)['weight'].tolist() == [0, 0]
        assert load('file.pth')['weight'].tolist() == [1, 1]  # kept, and not asked for again
        kept = sorted(path.name for path in (tmp_path / 'torch/hub/checkpoints').iterdir())
        assert len(kept) == 3 and all(name.endswith('_file.pth') for name in kept)

    def test_what_was_broken_is_asked_for_again(self, load):
        with pytest.raises(ValueError, match='bytes came of'):
            load('broken/file.pth')
        assert load('other/file.pth')['weight'].tolist() == [1, 1]

    def test_the_hash_in_a_name(self, load, server, tmp_path):
        folder, _ = server
        digits = hashlib.sha256((folder / 'file.pth').read_bytes()).hexdigest()[:8]
        assert load(f'other/r50-{digits}.pth')['weight'].tolist() == [1, 1]
        assert load('other/r50_20210831-20210831.pth')['weight'].tolist() == [1, 1]  # a date
        with pytest.raises(ValueError, match='not that which its name has the hash of'):
            load('other/r50-0123abcd.pth')
        # torch's own copy is taken if it is what the name says, and only then
        cache = tmp_path / 'torch/hub/checkpoints'
        (cache / f'r18-{digits}.pth').write_bytes((folder / 'file.pth').read_bytes())
        assert load(f'gone/r18-{digits}.pth')['weight'].tolist() == [1, 1]
        (cache / 'r18-0123abcd.pth').write_bytes((folder / 'file.pth').read_bytes())
        with pytest.raises(ValueError, match='404'):
            load('gone/r18-0123abcd.pth')
