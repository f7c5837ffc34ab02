import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

import lesa_mmdet  # noqa: F401
from lesa_mmdet.checkpoints.files import history_buffer_method


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def save(content, path):
    torch.save({'state_dict': {'weight': torch.zeros(2)}, 'more': content}, path)
    return str(path)


def test_what_mmengine_saves_is_loaded(tmp_path):
    hub = MessageHub.get_instance('test_serialization')
    for value in (0.5, np.float64(0.25), 3):
        hub.update_scalar('train/loss', float(value), count=2)
    hub.update_info('epoch', 3)
    hub.update_info('best_score', np.float64(0.25))
    checkpoint = torch.load(save(hub.state_dict(), tmp_path / 'epoch_3.pth'))
    buffer = checkpoint['more']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == pytest.approx(sum((0.5, 0.25, 3)) / 6)
    assert buffer.statistics('max') == 3
    assert checkpoint['more']['runtime_info']['best_score'] == 0.25


@pytest.mark.parametrize(
    'content, name',
    [
        (Calls(os.system, 'touch {marker}'), 'posix.system'),
        (Calls(eval, '__import__("os").system("touch {marker}")'), 'eval'),
        (Calls(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Calls(getattr, HistoryBuffer, 'register_statistics'), 'getattr'),
        (Calls(getattr, np.ndarray, 'tofile'), 'getattr'),
    ],
)
def test_anything_else_is_refused_and_not_executed(content, name, tmp_path):
    marker = tmp_path / 'executed'
    function, args = content.call
    content.call = (
        function,
        tuple(a.format(marker=marker) if isinstance(a, str) else a for a in args),
    )
    path = save(content, tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)
    with pytest.raises(ValueError, match=f'evil.pth is refused.*{name}'):
        CheckpointLoader.load_checkpoint(path)
    assert not marker.exists()


def test_refused_in_a_fresh_process(tmp_path):
    marker = tmp_path / 'executed'
    path = save(Calls(os.system, f'touch {marker}'), tmp_path / 'evil.pth')
    code = f'import torch, lesa_mmdet; torch.load({path!r})'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode != 0 and 'posix' in result.stderr
    assert not marker.exists()


def test_getattr_gives_the_statistics_only():
    assert history_buffer_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, '__class__'), (dict, 'mean'), (os, 'system')):
        with pytest.raises(pickle.UnpicklingError, match='not allowed'):
            history_buffer_method(owner, name)


def truncated(path):
    torch.save({'weight': torch.zeros(3000)}, path)
    path.write_bytes(path.read_bytes()[:6000])


@pytest.mark.parametrize(
    'write',
    [
        truncated,
        lambda path: path.write_text('<html>Not found</html>'),
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(pickle.dumps({'weight': [0.0]})),
    ],
)
def test_no_checkpoint(write, tmp_path):
    path = tmp_path / 'file.pth'
    write(path)
    with pytest.raises(ValueError, match='file.pth is not a checkpoint .* or it is truncated'):
        CheckpointLoader.load_checkpoint(str(path))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'nothing.pth'))
