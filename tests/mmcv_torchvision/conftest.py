"""mmcv's Python half over the operators of mmcv_torchvision, whichever are installed."""

import sys

import mmcv.ops  # noqa: F401
import pytest


@pytest.fixture(scope='session')
def operators():
    """The package; without a torchvision that fits torch, there is nothing to test."""
    return pytest.importorskip('mmcv_torchvision', exc_type=ImportError)


@pytest.fixture(autouse=True)
def over_torchvision(operators, monkeypatch):
    """Let mmcv.ops take them also where mmcv was compiled."""
    for name, module in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', operators)
