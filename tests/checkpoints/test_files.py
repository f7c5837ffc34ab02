import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

from lesa_mmdet.checkpoints.files import read_checkpoint

from helpers import pickles


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def save(content, path):
    torch.save({'state_dict': {'weight': torch.zeros(2)}, 'more': content}, path)
    return str(path)


def test_what_mmengine_saves_is_loaded_and_saved_again(tmp_path):
    hub = MessageHub.get_instance('test_files')
    for value in (0.5, np.float64(0.25), 3):
        hub.update_scalar('train/loss', float(value), count=2)
    hub.update_info('epoch', 3)
    hub.update_info('best_score', np.float64(0.25))
    content = hub.state_dict()
    for path in (tmp_path / 'epoch_3.pth', tmp_path / 'again.pth'):
        content = read_checkpoint(save(content, path))['more']
        buffer = content['log_scalars']['train/loss']
        assert type(buffer) is HistoryBuffer
        assert buffer.mean() == pytest.approx(sum((0.5, 0.25, 3)) / 6)
        assert buffer.statistics('max') == 3
        assert content['runtime_info']['best_score'] == 0.25


@pytest.mark.parametrize(
    'value',
    [
        np.float32(1.5),
        np.int32(-3),
        np.bool_(True),
        np.complex64(1j),
        np.arange(6, dtype='u2').reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(3, dtype='>i4'),
        np.zeros((0, 3)),
        np.dtype('float32'),
    ],
)
def test_numbers_and_arrays_of_numbers_are_loaded(value, tmp_path):
    loaded = read_checkpoint(save({'a': [(value, value)]}, tmp_path / 'file.pth'))['more']['a'][0][
        1
    ]
    assert type(loaded) is type(value)
    np.testing.assert_equal(loaded, value)
    assert getattr(loaded, 'dtype', None) == getattr(value, 'dtype', None)
    if np.ndim(value) == 2 and value.size:
        assert loaded.flags.f_contiguous == value.flags.f_contiguous


@pytest.mark.parametrize(
    'content, name',
    [
        (Calls(os.system, 'touch {marker}'), 'posix.system'),
        (Calls(eval, '__import__("os").system("touch {marker}")'), 'eval'),
        (Calls(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Calls(getattr, HistoryBuffer, 'register_statistics'), 'getattr'),
        (Calls(getattr, np.ndarray, 'tofile'), r"getattr\(numpy.ndarray, 'tofile'\)"),
        (np.array(['a']), "NumPy data of type 'U1'"),
        (np.array([object()]), 'object'),
        (np.zeros(2, [('a', 'f4')]), "NumPy data of type 'V4'"),
        (np.ndarray, 'numpy.ndarray'),
        (slice(2), 'slice'),
    ],
)
def test_anything_else_is_refused_by_name_and_not_executed(content, name, tmp_path):
    marker = tmp_path / 'executed'
    if isinstance(content, Calls):
        function, args = content.call
        args = (a.format(marker=marker) if isinstance(a, str) else a for a in args)
        content.call = function, tuple(args)
    path = save(content, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=f'evil.pth is refused, nothing.*asks for {name}'):
        CheckpointLoader.load_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert not marker.exists()


def test_importing_the_package_allows_nothing_to_others(tmp_path):
    path = save({'score': np.float64(1)}, tmp_path / 'file.pth')
    before = set(torch.serialization.get_safe_globals())
    assert read_checkpoint(path)['more'] == {'score': 1}
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError, match='numpy'):
        torch.load(path, weights_only=True)


def test_refused_in_a_fresh_process(tmp_path):
    marker = tmp_path / 'executed'
    path = save(Calls(os.system, f'touch {marker}'), tmp_path / 'evil.pth')
    code = f'import lesa_mmdet.checkpoints.files as files; files.read_checkpoint({path!r})'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf-8')
    assert result.returncode != 0 and 'it asks for posix.system' in result.stderr
    assert not marker.exists()


def test_a_log_history_brings_no_statistics(tmp_path):
    """mmengine's own keep what they are for the whole process."""
    before = dict(HistoryBuffer._statistics_methods)
    parts = (pickles.array(pickles.dtype()) for _ in range(2))
    node = pickles.history(*parts, statistics_methods={'mean': pickles.Global('torch.Tensor')})
    with pytest.raises(ValueError, match='it asks for torch.Tensor'):
        read_checkpoint(pickles.write(tmp_path / 'file.pth', [node]))
    node.state['statistics_methods'] = {'mean': 'min'}
    read_checkpoint(pickles.write(tmp_path / 'file.pth', [node]))
    assert HistoryBuffer._statistics_methods == before


def test_code_of_an_old_config_is_dropped(tmp_path):
    """mmengine runs ``meta['config']``, which mmdet 2 wrote, when it resumes."""
    torch.save({'meta': {'config': 'import os', 'epoch': 3}}, tmp_path / 'file.pth')
    assert read_checkpoint(tmp_path / 'file.pth') == {'meta': {'epoch': 3}}


@pytest.mark.skipif(torch.cuda.is_available(), reason='is about machines without CUDA')
def test_from_a_gpu_on_a_machine_without(tmp_path):
    path = pickles.write(tmp_path / 'gpu.pth', {'weight': pickles.tensor(location='cuda:0')})
    assert read_checkpoint(path, map_location='cpu')['weight'].device.type == 'cpu'
    with pytest.raises(ValueError, match='gpu.pth cannot be read: .*CUDA device') as error:
        read_checkpoint(path)
    assert 'truncated' not in str(error.value)


def truncated(path):
    torch.save({'weight': torch.zeros(3000)}, path)
    path.write_bytes(path.read_bytes()[:6000])


@pytest.mark.parametrize(
    'write',
    [
        truncated,
        lambda path: path.write_text('<html>Not found</html>', encoding='utf-8'),
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


def test_folder(tmp_path):
    with pytest.raises(ValueError, match='is a folder, but has to be a file'):
        CheckpointLoader.load_checkpoint(str(tmp_path))


def test_errors_of_the_system_stay_as_they_are(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, 'Permission denied', 'file.pth')

    save({}, tmp_path / 'file.pth')
    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(PermissionError, match='Permission denied'):
        read_checkpoint(tmp_path / 'file.pth')


def test_torch_that_runs_code_reads_nothing(tmp_path, monkeypatch):
    path = save({}, tmp_path / 'file.pth')
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    with pytest.raises(ImportError, match='torch 2.6 or newer, here is 2.5.1'):
        read_checkpoint(path)
