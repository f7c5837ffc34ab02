import sys

import pytest

from lesa_mmdet.engine import launch


def test_tools_are_those_of_the_installed_mmdet():
    for name in ('train.py', 'test.py', 'dist_train.sh', 'dist_test.sh'):
        tool = launch.find_tool(name)
        assert tool.is_file() and 'mmdet' in tool.parts
    with pytest.raises(FileNotFoundError, match='tools/nothing.py is not at'):
        launch.find_tool('nothing.py')


def test_help_is_mmdets(run):
    assert '--auto-scale-lr' in run('tools/train.py', '--help')


def test_unknown_config(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py', 'configs/none.py'])
    with pytest.raises(SystemExit, match=r'^error: .*configs/none\.py'):
        launch.run_tool('train')
