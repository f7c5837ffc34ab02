"""What keeps a stack from being imported is said in one sentence, with what mends it."""

from importlib.metadata import PackageNotFoundError

import pytest

from lesa_mmdet.utils import stacks


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
def test_explanations(error, says):
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
