import sys
from itertools import chain, permutations

import pytest

from lesa_mmdet.engine import launch

from helpers.paths import ROOT


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


CONFIG = 'configs/demo/mask-rcnn_lesa-r50-narrow_fpn_1xb4-6e_shapes-160.py'


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_arguments_in_every_order(tool, monkeypatch):
    monkeypatch.chdir(ROOT)
    positional = [CONFIG] if tool == 'train' else [CONFIG, 'model.pth']
    options = ['--work-dir', 'out'], ['--launcher', 'none'], ['--cfg-options', 'a=1', 'b=2']
    read = []
    monkeypatch.setattr(launch, 'read_config', lambda path: read.append(path) or {})
    monkeypatch.setattr(launch, 'change_config', lambda cfg, options: cfg.update(options))
    for groups in permutations([positional, *options]):
        before = groups[: groups.index(positional)]
        if before and before[-1] == options[2]:
            continue  # options take all that follows
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *chain(*groups)])
        _, args, cfg = launch._choose_tool(tool)
        assert args.config == CONFIG and args.work_dir == 'out'
        assert cfg['a'] == 1 and cfg['b'] == 2
        assert tool == 'train' or args.checkpoint == 'model.pth'
        assert read == [CONFIG]  # once
        read.clear()


@pytest.mark.parametrize('arguments', [[], ['--cfg-options', 'a=1'], [CONFIG, '--nonsense']])
def test_what_is_wrong_with_the_arguments_is_said(arguments, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['train.py', *arguments])
    with pytest.raises(SystemExit) as exit:
        launch.run_tool('train')
    assert exit.value.code == 2 and 'usage: ' in capsys.readouterr().err
