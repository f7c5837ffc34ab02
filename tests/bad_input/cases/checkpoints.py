"""Checkpoints that are not there, broken, of something else, or of another training."""

import fcntl
import json
import os
import time

import torch
from mmengine.config import Config

from lesa_mmdet import LESA_ResNet

from helpers.bad_input import Case

TRAIN, TEST, COMPARE = 'tools/train.py', 'tools/test.py', 'tools/analysis/compare.py'
REFUSED = r'the checkpoint does not fit MaskRCNN: '


class Dangerous:
    def __reduce__(self):
        return os.system, ('echo executed',)


def checkpoint(name, sentence, change, command=lambda place, config, file: [TEST, config, file]):
    """A case of a changed checkpoint of the tiny detector."""

    def do(place):
        place.data()
        config = place.config()
        file = place.checkpoint(config)
        content = torch.load(file)
        change(content)
        torch.save(content, file)
        return command(place, config, file)

    return Case(name, sentence, do)


def file(name, sentence, write):
    """A case of a file that is no checkpoint of the detector; ``write`` returns its path."""

    def do(place):
        place.data()
        return [TEST, place.config(), write(place)]

    return Case(name, sentence, do)


def trained(name, sentence, change=None, *arguments):
    def do(place):
        place.data()
        return [TRAIN, place.config(lambda cfg: change and change(cfg, place)), *arguments]

    return Case(name, sentence, do)


def drop(prefix):
    def change(content):
        weights = content['state_dict']
        for key in [key for key in weights if key.startswith(prefix)]:
            del weights[key]

    return change


def set_weight(key, value):
    return lambda content: content['state_dict'].update({key: value})


def not_a_number(content):
    content['state_dict']['roi_head.bbox_head.fc_cls.weight'][0] = float('nan')


def saved(place, content):
    torch.save(content, place / 'saved.pth')
    return place / 'saved.pth'


def of_optimizer(optimizer):
    """A change of a checkpoint: its config has another optimizer."""

    def change(content):
        text = f"optim_wrapper = dict(optimizer=dict(lr=0.1, type='{optimizer}'))"
        content['meta'].update(cfg=text, epoch=1, iter=2)
        content.update(optimizer={}, message_hub={})

    return change


def resume(place, config, file):
    return [TRAIN, config, '--resume', file]


def hold_work_dir(place):
    """Another process has the work directory until this one ends."""
    parent, lock = os.getpid(), place.write('work/training.lock')
    if os.fork() == 0:
        with lock.open('r+', encoding='utf-8') as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            held.write(json.dumps(dict(pid=1234, host='node-0', command='train.py a.py')))
            held.flush()
            while os.getppid() == parent:
                time.sleep(0.1)
            os._exit(0)
    while not lock.read_text(encoding='utf-8'):
        time.sleep(0.1)
    place.data()
    return [TRAIN, place.config()]


def backbone(weights):
    """A change of the config: the backbone starts with these weights."""

    def change(cfg, place):
        path = str(saved(place, dict(state_dict=weights(cfg))))
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)

    return change


def plain(cfg):
    """Weights of the backbone's twin of plain convolution."""
    arguments = {**Config(cfg.model.backbone).to_dict(), 'operator': None}
    del arguments['type']
    return LESA_ResNet(**arguments).state_dict()


CASES = [
    checkpoint('without heads', REFUSED + r'\d+ missing \(roi_head\.', drop('roi_head.')),
    checkpoint('without a backbone', r'the checkpoint does not fit \w+: ', drop('backbone.')),
    checkpoint(
        'with more than the model has',
        REFUSED + r'1 unexpected \(extra\.weight\)',
        set_weight('extra.weight', torch.ones(1)),
    ),
    checkpoint(
        'of another number of classes',
        REFUSED + r'1 of another shape .*; heads of another number of classes start fresh in a',
        set_weight('roi_head.bbox_head.fc_cls.weight', torch.ones(9, 128)),
    ),
    checkpoint(
        'of classes of other names',
        r'^error: the checkpoint has learnt 6 classes, the data set has 6: class 0 is .cat.',
        lambda content: content['meta'].update(dataset_meta=dict(classes=('cat', *'abcde'))),
    ),
    checkpoint(
        'weights that are not a number', r'^error: the weights are not finite', not_a_number
    ),
    checkpoint(
        'compare: without heads',
        r'^error: .*does not go into the model of .*' + REFUSED,
        drop('roi_head.'),
        lambda place, config, file: [COMPARE, place / 'data/val', '--models', config, file],
    ),
    file('that is not there', r'^error: checkpoint: gone\.pth does not', lambda place: 'gone.pth'),
    file('a folder', r'^error: checkpoint: .* is a folder, but has to', lambda place: place.folder),
    file('empty', r'^error: .*is not a checkpoint of', lambda place: place.write('a.pth')),
    file(
        'a page instead of a file',
        r'^error: .*a\.pth is not a checkpoint of torch\.save, or it is truncated',
        lambda place: place.write('a.pth', '<html>'),
    ),
    file(
        'that asks for a command',
        r'^error: .*is refused, nothing of it was executed: it asks for ',
        lambda place: saved(place, dict(state_dict={}, meta=Dangerous())),
    ),
    file(
        'of something else',
        r'^error: the checkpoint does not fit \w+: ',
        lambda place: saved(place, dict(encoder=torch.ones(1), decoder=torch.ones(1))),
    ),
    trained(
        'load_from that is not there',
        r'^error: load_from: gone\.pth does not exist in',
        lambda cfg, place: cfg.update(load_from='gone.pth'),
    ),
    trained(
        'load_from a folder',
        r'^error: load_from: .* is a folder, but has to be a file',
        lambda cfg, place: cfg.update(load_from=str(place.folder)),
    ),
    trained(
        'resume from nothing', r'^error: --resume: gone\.pth does', None, '--resume', 'gone.pth'
    ),
    trained(
        'resume from a folder', r'^error: --resume: docs is a folder', None, '--resume', 'docs'
    ),
    checkpoint(
        'resume with another optimizer',
        r'^error: the checkpoint was trained with the optimizer SGD, whose state AdamW cannot take',
        of_optimizer('SGD'),
        resume,
    ),
    checkpoint(
        'resume with other classes',
        r'^error: the checkpoint has learnt 6 classes, the data set has 6: class 0',
        lambda content: (
            of_optimizer('AdamW')(content),
            content['meta'].update(dataset_meta=dict(classes=('cat', *'abcde'))),
        ),
        resume,
    ),
    Case(
        'a work directory in use',
        r'^error: .*/work is in use by another training, process 1234 on node-0',
        hold_work_dir,
    ),
    trained(
        'a backbone of plain convolution for LESA',
        r'^error: the checkpoint does not fit LESA_ResNet: it looks like one of plain conv',
        backbone(plain),
    ),
    trained(
        'a backbone from a file without one',
        r'^error: the checkpoint does not fit LESA_ResNet: it has nothing of a backbone, only',
        backbone(lambda cfg: {'decoder.weight': torch.ones(1)}),
    ),
]
