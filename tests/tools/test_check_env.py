"""What tools/check_env.py says of operators and GPUs, on machines that are not here."""

import importlib.util
import runpy
import sys
from types import SimpleNamespace

import mmcv
import pytest
import torch

from lesa_mmdet.utils import devices

from helpers.paths import ROOT


@pytest.fixture
def check_env():
    spec = importlib.util.spec_from_file_location('check_env', ROOT / 'tools' / 'check_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def operators(check_env, monkeypatch):
    """Operators of a kind, compiled with a CUDA, beside a torch that uses a GPU or not."""
    monkeypatch.setattr(check_env, 'versions', lambda names: dict.fromkeys(names, '0.29.1'))

    def pretend(file, cuda, gpu):
        ext = SimpleNamespace(
            __file__=f'/site-packages/mmcv/{file}',
            get_compiler_version=lambda: 'GCC 12.2',
            get_compiling_cuda_version=lambda: cuda,
        )
        monkeypatch.setitem(sys.modules, 'mmcv._ext', ext)
        monkeypatch.setattr(mmcv, '_ext', ext, raising=False)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)

    return pretend


@pytest.mark.parametrize('file', ['_ext.py', '_ext.cpython-311-x86_64-linux-gnu.so'])
def test_operators(check_env, operators, file):
    operators(file, '13.0', gpu=True)
    whose = "torchvision's, 0.29.1" if file == '_ext.py' else "mmcv's own, compiled with GCC 12.2"
    assert check_env.operators() == f'{whose}, CUDA 13.0'
    assert check_env.without_cuda() is None
    operators(file, 'not available', gpu=False)
    assert check_env.without_cuda() is None
    operators(file, 'not available', gpu=True)
    said = check_env.without_cuda()
    assert 'are for CPUs, but torch uses a GPU -> pip ' in said and '\n' not in said
    assert ('pip uninstall mmcv' in said) == file.endswith('.so')


@pytest.mark.parametrize('problem', [None, 'torch 2 does not use the GPU'])
def test_it_warns_of_a_gpu_that_is_not_used(check_env, monkeypatch, capsys, problem):
    monkeypatch.setattr(devices, 'unused_gpu', lambda: problem)
    monkeypatch.setattr(check_env, 'PROJECT', {})
    monkeypatch.setattr(sys, 'argv', ['check_env.py'])
    check_env.main()
    first, *others = capsys.readouterr().out.splitlines()
    assert 'has all that is needed' in first and 'operators: ' in first
    assert others == ([f'warning: {problem}'] if problem else [])
    facts = check_env.describe_devices()
    assert facts['GPU that is not used'] == (problem or 'none') and facts['operators']


def test_operators_for_cpus_beside_a_gpu_are_a_problem(check_env, operators, monkeypatch):
    operators('_ext.py', 'not available', gpu=True)
    monkeypatch.setattr(check_env, 'PROJECT', {})
    monkeypatch.setattr(sys, 'argv', ['check_env.py'])
    with pytest.raises(SystemExit, match='cannot run this project'):
        check_env.main()


def test_check_env_accepts_this_environment(run):
    assert 'has all that is needed' in run('tools/check_env.py')


def test_check_env_advises_to_install_only_what_is_missing(monkeypatch):
    check = runpy.run_path(str(ROOT / 'tools' / 'check_env.py'))['check_modules']

    def fail(module):
        raise {'a': ImportError('no a'), 'b': RuntimeError('Could not find home\nmore')}[module]

    monkeypatch.setitem(check.__globals__, 'import_module', fail)
    missing, failing = check({'a': 'pip install a', 'b': 'pip install b'})
    assert missing == '  a: no a -> pip install a'
    assert failing == '  b: is installed, but fails: RuntimeError: Could not find home'


def test_check_env_says_a_trouble_once(check_env, monkeypatch):
    """Not of all that is built on it, and no command beside one that the sentence has."""
    tried = []

    def fail(module):
        tried.append(module)
        if module == 'mmcv.ops':
            raise ImportError('mixed: pip uninstall mmcv')
        if module in ('cv2', 'mmcv.version'):
            raise ModuleNotFoundError(f'No module named {module}')

    monkeypatch.setattr(check_env, 'import_module', fail)
    cv2, mmcv_itself = check_env.check_modules(check_env.PROJECT)[::-1]
    assert cv2.endswith(' -> pip install opencv-python-headless')
    assert mmcv_itself.endswith(
        f'  mmcv.version: No module named mmcv.version -> {check_env.A_STACK}'
    )
    assert not {'mmcv.ops', 'mmdet.apis', 'lesa_mmdet'} & set(tried)
    [alone] = check_env.check_modules({'mmcv.ops': 'pip install another'})
    assert alone == '  mmcv.ops: mixed: pip uninstall mmcv'
