import copy
import sys
from argparse import Namespace
from itertools import chain, permutations
from multiprocessing.queues import Queue
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from lesa_mmdet.engine import launch
from lesa_mmdet.utils.command import explain

from helpers.paths import DEMO, ROOT


def test_tools_are_those_of_the_installed_mmdet():
    for name in ('train.py', 'test.py', 'dist_train.sh', 'dist_test.sh'):
        tool = launch.find_tool(name)
        assert tool.is_file() and 'mmdet' in tool.parts
    with pytest.raises(FileNotFoundError, match='tools/nothing.py is not at'):
        launch.find_tool('nothing.py')


def test_help_is_mmdets(run):
    assert '--auto-scale-lr' in run('tools/train.py', '--help')


class Unsendable:
    def __reduce__(self):
        raise OSError(28, 'No space left on device', '/dev/shm/\x1b')


def test_a_worker_that_cannot_hand_a_batch_on_is_not_waited_for(monkeypatch, capfd):
    """As with a /dev/shm that fills, or too many open files."""
    monkeypatch.setattr(Queue, '_on_queue_feeder_error', Queue._on_queue_feeder_error)
    launch.end_workers_that_cannot_send()
    loader = DataLoader([Unsendable()], num_workers=1, collate_fn=list, timeout=60)
    with pytest.raises(RuntimeError, match='DataLoader worker .*(unexpectedly|by signal)') as error:
        list(loader)
    assert 'enlarge /dev/shm' in explain(error.value)
    said = capfd.readouterr().err
    assert 'a worker cannot hand a batch on: ' in said and r'\x1b' in said
    assert 'Traceback' not in said


def test_unknown_config(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py', 'configs/none.py'])
    with pytest.raises(SystemExit, match=r'^error: .*configs/none\.py'):
        launch.run_tool('train')


CONFIG = str(DEMO.relative_to(ROOT))


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


def registered(hooks):
    """Names of the default hooks that mmengine registers; an error if it cannot."""
    found = []
    runner = SimpleNamespace(register_hook=found.append)
    Runner.register_default_hooks(runner, copy.deepcopy(hooks))
    return [hook['type'] for hook in found]


def test_mmengine_leaves_its_own_default_hooks_out():
    for name in launch.MMENGINES_HOOKS:
        assert len(registered({name: None})) == len(launch.MMENGINES_HOOKS) - 1
    with pytest.raises(AssertionError):
        registered(dict(lock=None))


@pytest.mark.parametrize('name', [*Config.fromfile(ROOT / CONFIG).default_hooks, 'runtime_info'])
@pytest.mark.parametrize('is_option', [True, False])
def test_any_default_hook_can_be_left_out(name, is_option):
    whole, options = Config.fromfile(ROOT / CONFIG), {'train_cfg.max_epochs': 1}
    expected = registered(whole.default_hooks)
    kind = dict(whole.default_hooks).get(name, dict(type='RuntimeInfoHook'))['type']
    if is_option:
        options[f'default_hooks.{name}'] = None
    else:
        whole.default_hooks[name] = None
    args, cfg = Namespace(cfg_options=options), copy.deepcopy(whole)
    cfg.merge_from_dict(options)
    launch._leave_out_hooks(args, cfg)
    whole.merge_from_dict(args.cfg_options)  # as mmdet's tool does
    assert whole.train_cfg.max_epochs == 1
    assert registered(whole.default_hooks) == [hook for hook in expected if hook != kind]
