"""Why torch does not use a GPU that nvidia-smi lists, on machines that are not here."""

import sys

import pytest
import torch

from lesa_mmdet.utils import devices

from helpers.paths import DEMO

SMI = """#!{python}
import sys
if sys.argv[1:]:
    print('NVIDIA L4, {driver}')
else:
    print('| NVIDIA-SMI {driver}    Driver Version: {driver}    CUDA Version: {cuda}  |')
sys.exit({code})
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A driver that lists a GPU, which torch, built with a CUDA, does not see."""

    def pretend(cuda, of_driver='12.2', code=0, says='no kernel driver'):
        smi = tmp_path / 'nvidia-smi'
        text = SMI.format(python=sys.executable, driver='535.54', cuda=of_driver, code=code)
        smi.write_text(text, encoding='utf-8')
        smi.chmod(0o755)

        def init():
            raise RuntimeError(says)

        monkeypatch.setenv('PATH', str(tmp_path))
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        monkeypatch.setattr(torch.cuda, 'init', init)
        monkeypatch.setattr(torch.version, 'cuda', cuda)

    return pretend


@pytest.mark.parametrize(
    ('cuda', 'of_driver', 'says'),
    [
        (None, '12.2', 'it is a build for CPUs; pip install --force-reinstall'),
        ('13.0', '12.2', 'built with CUDA 13.0, and this driver knows CUDA 12.2 at most; install'),
        ('12.8', '12.2', 'no kernel driver'),  # minor versions go together
        ('13.0', '13.1', 'no kernel driver'),
        ('13.0', 'N/A', 'no kernel driver'),
    ],
)
def test_why(machine, cuda, of_driver, says):
    machine(cuda, of_driver)
    said = devices.unused_gpu()
    assert said.startswith(f'torch {torch.__version__} does not use the GPU (NVIDIA L4, driver 5')
    assert says in said and '\n' not in said


def test_nothing_to_say(machine, monkeypatch):
    machine(None, code=1)  # a driver that does not run
    assert devices.unused_gpu() is None
    machine(None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert devices.unused_gpu() is None
    machine(None)
    for hidden in ('', '-1', ' '):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
        assert devices.unused_gpu() is None
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    assert devices.unused_gpu()
    monkeypatch.setenv('PATH', '')
    assert devices.unused_gpu() is None


def test_devices_have_names():
    assert devices.device_name(torch.device('cpu')).startswith('CPU ')
    assert devices.device_name(torch.device('mps')) == 'mps'


def test_a_training_says_so_first(machine, monkeypatch, capsys):
    from lesa_mmdet.engine import launch

    def stop(cfg, name):
        raise SystemExit('checked')

    machine(None)
    monkeypatch.setattr(launch, 'check_config', stop)
    for rank, lines in (('0', 1), ('1', 0)):
        monkeypatch.setenv('RANK', rank)
        monkeypatch.setattr(sys, 'argv', ['train.py', str(DEMO)])
        with pytest.raises(SystemExit):
            launch.run_tool('train')
        said = capsys.readouterr().err.splitlines()
        assert sum(line.startswith('warning: torch') for line in said) == lines
