"""Work directories and states of trainings, from which one resumes."""

import os
from collections import Counter
from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import LinearLR, MultiStepLR
from torch import nn

from lesa_mmdet.checkpoints.atomic import write_atomic
from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.checkpoints.structure import require_resumable
from lesa_mmdet.engine.lock import lock
from lesa_mmdet.engine.resume import find_newest, require_same_training

from helpers.bad_input import Case

CONFIG = "optim_wrapper = dict(optimizer=dict(lr=0.1, type='AdamW'))"


def training():
    """A runner, as far as resuming looks at it, after a step."""
    model = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    schedules = [LinearLR(optimizer, 0.1, end=5), MultiStepLR(optimizer, [3])]
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    cfg = Config.fromstring(CONFIG, '.py')
    wrapper = SimpleNamespace(optimizer=optimizer)
    return SimpleNamespace(cfg=cfg, optim_wrapper=wrapper, param_schedulers=schedules)


def resumed(name, sentence, change, code=1):
    """A case of a changed state, from which a training goes on."""

    def do(place):
        runner = training()
        content = dict(
            state_dict={},
            meta=dict(epoch=1, iter=2, seed=0, cfg=CONFIG),
            message_hub=dict(
                log_scalars={'loss': HistoryBuffer([1.0], [1])}, runtime_info={}, resumed_keys={}
            ),
            optimizer=runner.optim_wrapper.optimizer.state_dict(),
            param_schedulers=[schedule.state_dict() for schedule in runner.param_schedulers],
        )
        change(content)
        torch.save(content, place / 'a.pth')
        content = read_checkpoint(place / 'a.pth')
        require_same_training(content, runner.cfg)
        require_resumable(content, runner)

    return Case(name, sentence, do, code)


def put(path, value):
    """A change of what a path of keys leads to."""

    def change(content):
        *parents, last = path.split('.')
        for name in parents:
            content = content[int(name) if name.isdigit() else name]
        content[int(last) if last.isdigit() else last] = value

    return change


def text(value):
    """A change of the config's text."""
    return put('meta.cfg', value)


def group(key, value):
    return put(f'optimizer.param_groups.0.{key}', value)


def state(key, value):
    return put(f'optimizer.state.0.{key}', value)


def schedule(index, key, value):
    return put(f'param_schedulers.{index}.{key}', value)


def hub(key, value):
    return put(f'message_hub.{key}', value)


def noted(name, sentence, note, make=lambda folder: None):
    """A case of a note of the last checkpoint."""

    def do(place):
        folder = place / 'run'
        folder.mkdir()
        torch.save(dict(meta={}, message_hub={}, optimizer={}), place / 'other.pth')
        make(folder)
        path = folder / 'last_checkpoint'
        path.write_text(note.format(folder=folder), encoding='utf-8')
        assert find_newest(folder) is None

    return Case(name, sentence, do)


def linked(name):
    """A case of a link where a training writes."""

    def do(place):
        precious = place.write('precious', 'mine')
        (place / 'run').mkdir()
        (place / 'run' / name).symlink_to(precious)
        try:
            if name.endswith('.tmp'):
                write_atomic(place / 'run' / name.removesuffix('.tmp'), b'new')
            else:
                lock(place / 'run')
        finally:
            assert precious.read_text(encoding='utf-8') == 'mine'

    sentence = f'{name} is a link, to which nothing is written: remove it|symbolic links'
    return Case(f'a link at {name}', sentence, do)


NONE_OF = 'cannot be resumed from: '

CASES = [
    resumed('as it was', '', lambda content: None, 0),
    resumed('an epoch that is not a number', 'epoch is nan, but', put('meta.epoch', float('nan'))),
    resumed('an epoch of 10^30', 'epoch is 10+, but', put('meta.epoch', 10**30)),
    resumed('an iteration below 0', 'iter is -1, but', put('meta.iter', -1)),
    resumed('a seed of text', 'seed is a, but', put('meta.seed', 'a')),
    resumed('meta in a list', r'meta is \[1\], but', put('meta', [1])),
    resumed('a rate below 0', 'none of AdamW: Invalid learning rate', group('lr', -1.0)),
    resumed('a rate that is not a number', 'lr is nan, but', group('lr', float('nan'))),
    resumed('betas of text', 'betas is a, but has to be like', group('betas', 'a')),
    resumed('betas above 1', 'none of AdamW: Invalid beta', group('betas', (2.0, 3.0))),
    resumed('one beta', r'betas is \(0.9,\), but', group('betas', (0.9,))),
    resumed('no eps', 'eps is None, but', group('eps', None)),
    resumed('an infinite decay', 'weight_decay is inf, but', group('weight_decay', float('inf'))),
    resumed('fused of text', 'fused is a, but', group('fused', 'a')),
    resumed('both fused and foreach', 'none of AdamW: ',
            lambda c: (group('fused', True)(c), group('foreach', True)(c))),
    resumed('a step of text', 'step is a, or', state('step', 'a')),
    resumed('a step that is not a number', 'step is nan, or', state('step', float('nan'))),
    resumed('a mean of text', 'exp_avg is a, or', state('exp_avg', 'a')),
    resumed('a mean of nothing', 'exp_avg is None, or', state('exp_avg', None)),
    resumed('a mean of one number', r'exp_avg has the shape \(\), the',
            state('exp_avg', torch.ones(()))),
    resumed('an infinite mean', 'exp_avg is a value of type Tensor, or is not finite',
            state('exp_avg', torch.full((3, 2), torch.inf))),
    resumed('a state in a list', r'state\[0\] is \[1\], but', put('optimizer.state.0', [1])),
    resumed('a state of nothing', '', put('optimizer.state.0', {}), 0),
    resumed('an optimizer of text', 'optimizer is a, but', put('optimizer', 'a')),
    resumed('parameters of text', r'params\[0\] is a, but', group('params', ['a', 'b'])),
    resumed('a schedule at 10^30', 'last_step is 10+, which', schedule(0, 'last_step', 10**30)),
    resumed('a schedule of text', 'last_step is a, which is none', schedule(0, 'last_step', 'a')),
    resumed('a factor that is not a number', 'start_factor is nan',
            schedule(0, 'start_factor', float('nan'))),
    resumed('rates of text', r"base_values is \['a'\]", schedule(0, 'base_values', ['a'])),
    resumed('a schedule of another attribute', 'param_name is __class__',
            schedule(0, 'param_name', '__class__')),
    resumed('a method of a schedule', 'step is 1, which is none of', schedule(1, 'step', 1)),
    resumed('milestones in a list', r'milestones is \[1\], which', schedule(1, 'milestones', [1])),
    resumed('other milestones', '', schedule(1, 'milestones', Counter({1: 1})), 0),
    resumed('too few schedules', 'it has 0 schedules', put('param_schedulers', [])),
    resumed('scores of text', 'best_score is a, but', hub('runtime_info', {'best_score': 'a'})),
    resumed('a key of two lines', r'the key a\\nb, but', hub('runtime_info', {'a\nb': 1})),
    resumed('20,000 log scalars', '20,000 entries',
            hub('log_scalars', dict.fromkeys(map(str, range(20_000)), 1))),
    resumed('no log', 'message_hub has no log_scalars', put('message_hub', {})),
    resumed('a config that is deep', '', text('a = ' + '-' * 200_000 + '1'), 0),
    resumed('a config that is long', '', text('a = ' + '1+' * 4_000_000 + '1'), 0),
    resumed('a config that is a program', '', text('import os\nos.mkdir("executed")'), 0),
    resumed('another optimizer', r'the optimizer SGD\\nerror: forged\\x1b, whose',
            text(CONFIG.replace('AdamW', r'SGD\nerror: forged\x1b'))),
    resumed('other keys of a config', '', text('model = {"a\\x1b[2J\\n2026 - well": 1}'), 0),
    noted('a note of another folder', 'is not in', '{folder}/../other.pth'),
    noted('a note of what is not there', 'does not exist', '{folder}/gone.pth'),
    noted('a note of an address', 'is not in', 'http://127.0.0.1:9/epoch_1.pth'),
    noted('a note that moves the cursor', r'names a\\x1b', 'a\x1b[2J'),
    noted('a note of a pipe', 'is no file', '{folder}/pipe', lambda f: os.mkfifo(f / 'pipe')),
    noted('a note of a link', 'is not in', '{folder}/link.pth',
          lambda folder: (folder / 'link.pth').symlink_to(folder / '../other.pth')),
    *map(linked, ('training.lock', 'last_checkpoint', 'config.py', 'epoch_1.pth.tmp')),
]  # fmt: skip
