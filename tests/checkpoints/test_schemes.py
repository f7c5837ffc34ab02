"""Wherever a checkpoint comes from, nothing of it is executed."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.runner import CheckpointLoader, load_checkpoint

from lesa_mmdet.checkpoints import schemes

from helpers import pickles


class Quiet(SimpleHTTPRequestHandler):
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
