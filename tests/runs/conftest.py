import pytest
from filelock import FileLock

from lesa_mmdet.datasets.shapes import generate

from helpers.paths import ROOT


@pytest.fixture(scope='session')
def shapes_of_the_demo(tmp_path_factory):
    """The demo's images where it looks for them, written by one worker at a time."""
    with FileLock(tmp_path_factory.getbasetemp().parent / 'shapes.lock'):
        generate(ROOT / 'data' / 'shapes')
