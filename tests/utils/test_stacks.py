"""What keeps a stack from being imported is said in one sentence, with what mends it."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from lesa_mmdet.utils import stacks

from helpers.paths import ROOT


@pytest.mark.parametrize('ours', ['mmcv', 'mmcv-lite', 'mmdet'])
@pytest.mark.parametrize('theirs', ['onedl-mmcv', 'onedl-mmdetection'])
def test_both_stacks(monkeypatch, ours, theirs):
    def version(package):
        if package not in (ours, theirs):
            raise PackageNotFoundError(package)

    monkeypatch.setattr(stacks, 'version', version)
    with pytest.raises(ImportError, match=f'pip uninstall {ours} {theirs}, and then') as raised:
        stacks.refuse_both()
    assert '\n' not in str(raised.value) and './mmcv_torchvision' in str(raised.value)


@pytest.mark.parametrize('compiled', ['2.1.0', '2.2.0'])
def test_both_kinds_of_mmcv(monkeypatch, compiled):
    """Of one version, they have the same files."""

    def version(package):
        if package not in ('mmcv', 'mmcv-lite'):
            raise PackageNotFoundError(package)
        return compiled if package == 'mmcv' else '2.1.0'

    monkeypatch.setattr(stacks, 'version', version)
    if compiled == '2.1.0':
        return stacks.refuse_both()
    with pytest.raises(ImportError, match='mmcv 2.2.0 and mmcv-lite 2.1.0 .* mixed') as raised:
        stacks.refuse_both()
    assert 'pip uninstall mmcv mmcv-lite, and then' in str(raised.value)


def test_one_stack(monkeypatch):
    def version(package):
        if package.startswith('onedl'):
            raise PackageNotFoundError(package)

    monkeypatch.setattr(stacks, 'version', version)
    stacks.refuse_both()
    assert all(map(stacks._is_installed, stacks.STACKS['OpenMMLab']))


@pytest.mark.parametrize(
    ('error', 'says'),
    [
        (ModuleNotFoundError("No module named 'mmcv._ext'", name='mmcv._ext'), 'with operators'),
        (ModuleNotFoundError("No module named 'mmdet'", name='mmdet'), 'mmengine and mmdet'),
        (ImportError('a.so: undefined symbol: _ZN3c10', name='mmcv._ext'), 'do not fit torch'),
    ],
)
def test_explanations(error, says, monkeypatch):
    monkeypatch.setattr(stacks, '_is_installed', lambda package: package == 'mmcv')
    said = stacks.explain(error)
    assert type(said) is type(error) and said.name == error.name
    assert says in str(said) and str(error) in str(said) and '\n' not in str(said)
    assert 'pip install -r requirements/openmmlab.txt ./mmcv_torchvision' in str(said)


@pytest.mark.parametrize(
    'error',
    [
        ImportError("mmcv's operators need torchvision, but torchvision 0.1 does not fit torch"),
        ModuleNotFoundError("No module named 'addict'", name='addict'),
    ],
)
def test_other_errors_stay(error):
    assert stacks.explain(error) is error


@pytest.mark.parametrize('module', ['mmcv', 'mmengine', 'mmdet'])
@pytest.mark.parametrize('as_file', [True, False], ids=['file', 'folder'])
def test_something_else_of_that_name(tmp_path, module, as_file):
    """As a folder in the current directory, or what is left of a package: where it lies is said."""
    other = tmp_path / (f'{module}.py' if as_file else module)
    other.touch() if as_file else other.mkdir()
    if not as_file:
        (other / '__init__.py').touch()
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', 'import lesa_mmdet'],
        capture_output=True,
        encoding='utf-8',
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': path},
    )
    last = result.stderr.splitlines()[-1]
    assert last.startswith('ModuleNotFoundError: ') and f'takes {module} from {other}, ' in last
    assert 'rename that folder' in last and 'pip uninstall ' in last
