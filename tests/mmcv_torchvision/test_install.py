"""The operators beside mmcv's files: which module Python takes, and what keeps it from loading."""

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from importlib.metadata import PackageNotFoundError

import pytest

from helpers.paths import ROOT

PROJECT = ROOT / 'mmcv_torchvision'


def test_a_compiled_module_goes_first(tmp_path):
    (tmp_path / '_ext.py').write_bytes((PROJECT / 'mmcv' / '_ext.py').read_bytes())
    assert PathFinder.find_spec('_ext', [str(tmp_path)]).origin.endswith('_ext.py')
    compiled = tmp_path / f'_ext{EXTENSION_SUFFIXES[0]}'
    compiled.touch()
    assert PathFinder.find_spec('_ext', [str(tmp_path)]).origin == str(compiled)


def import_operators(tmp_path, **modules):
    """What an import of ``mmcv._ext`` alone says where these modules are first on the path."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').touch()
    (tmp_path / 'mmcv' / '_ext.py').write_bytes((PROJECT / 'mmcv' / '_ext.py').read_bytes())
    for name, source in modules.items():
        (tmp_path / f'{name}.py').write_text(source, encoding='utf-8')
    path = f'import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(PROJECT / "src")!r}]'
    result = subprocess.run(
        [sys.executable, '-c', f'{path}; import mmcv._ext as ext; print(sorted(ext.__dict__))'],
        capture_output=True,
        encoding='utf-8',
        cwd=tmp_path,
    )
    return result.returncode, result.stdout or result.stderr.splitlines()[-1]


def test_all_names_are_there(tmp_path, operators):
    code, names = import_operators(tmp_path)
    assert code == 0 and all(name in names for name in operators.__all__)


@pytest.mark.parametrize(
    'failure',
    [
        "raise RuntimeError('operator torchvision::nms does not exist')",
        "raise OSError('libcudart.so.13: cannot open shared object file')",
        "raise ImportError('undefined symbol: _ZN3c10')",
    ],
)
def test_a_torchvision_that_does_not_fit(tmp_path, failure):
    code, last = import_operators(tmp_path, torchvision=failure)
    assert code == 1 and last.startswith("ImportError: mmcv's operators need torchvision, but")
    assert 'does not fit torch' in last and 'pip install --force-reinstall' in last


def test_no_torchvision(operators, monkeypatch):
    monkeypatch.setattr(operators.installed, 'number', lambda package: None)
    said = operators.installed.explain(ImportError('No module named torchvision'))
    assert 'it is missing' in said and 'pip install' in said


@pytest.mark.parametrize('other', ['mmcv', 'mmcv-lite'])
def test_mixed_stacks(operators, monkeypatch, other):
    def version(package):
        if package in (other, 'onedl-mmcv'):
            return '2.1.0'
        raise PackageNotFoundError(package)

    monkeypatch.setattr(operators.installed, 'version', version)
    with pytest.raises(ImportError, match=f'^{other} and onedl-mmcv .*: pip uninstall {other} on'):
        operators.installed.refuse_mixed_stacks()
