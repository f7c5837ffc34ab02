"""What the hooks around checkpoints do in a run."""

import errno
import os

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from torch import nn
from torch.utils.data import Dataset

from lesa_mmdet.checkpoints import atomic
from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.engine.lock import NAME


class Numbers(Dataset):
    def __init__(self, classes):
        self.metainfo = dict(classes=classes)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {'inputs': float(index)}


class Head(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.fc = nn.Linear(1, num_classes)


class Model(BaseModel):
    def __init__(self, num_classes):
        super().__init__()
        self.neck = nn.Linear(1, 1)
        self.head = Head(num_classes)

    def forward(self, inputs, mode):
        out = self.head.fc(self.neck(inputs.float()[:, None]))
        return {'loss': out.square().mean()} if mode == 'loss' else [out]


class Better(BaseMetric):
    """Says that every evaluation is better than the last."""

    value = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Better.value += 1
        return {'mAP': Better.value}


def build(
    work_dir, classes=('a', 'b', 'c'), epochs=2, lr=0.1, fit={}, checkpoint={}, parts={}, **kwargs
):
    loader = dict(
        dataset=Numbers(classes),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=2,
        collate_fn=dict(type='default_collate'),
    )
    parts = {
        'train_cfg': dict(by_epoch=True, max_epochs=epochs),
        'optim_wrapper': dict(optimizer=dict(type='SGD', lr=lr, momentum=0.9)),
        **parts,
    }
    return Runner(
        cfg=parts,
        model=Model(len(classes)),
        work_dir=str(work_dir),
        default_scope='mmdet',
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=[Better()],
        test_evaluator=[Better()],
        default_hooks=dict(
            checkpoint={'type': 'AtomicCheckpointHook', 'interval': 1, **checkpoint},
            lock=dict(type='WorkDirLockHook'),
            fit=dict(type='FitCheckpointHook', **fit),
            logger=None,
        ),
        experiment_name=f'{work_dir.name}-{np.random.SeedSequence().entropy}',
        **parts,
        **kwargs,
    )


@pytest.fixture
def trained(tmp_path):
    """A training of two epochs."""
    build(tmp_path / 'trained').train()
    return tmp_path / 'trained' / 'epoch_2.pth'


def checkpoints(folder):
    return sorted(path.name for path in folder.iterdir() if '.pth' in path.name)


class TestSaving:
    def test_the_old_one_stays_until_the_new_one_is_there(self, tmp_path, monkeypatch):
        seen = []
        write = atomic.write_atomic

        def note(path, data):
            seen.append((os.path.basename(path), checkpoints(tmp_path)))
            write(path, data)

        monkeypatch.setattr(atomic, 'write_atomic', note)
        build(tmp_path, epochs=3, checkpoint=dict(max_keep_ckpts=1, save_best='mAP')).train()
        for name, there in seen[1:]:
            assert any(other.startswith(name[:5]) for other in there if other != name) or (
                name in there or name.startswith('best') and seen[1][0] == name
            ), seen
        assert checkpoints(tmp_path) == ['best_mAP_epoch_3.pth', 'epoch_3.pth']

    @pytest.mark.parametrize(
        'killed_in, left, epochs',
        [
            ('replace', ['epoch_1.pth', 'epoch_2.pth.tmp'], 2),  # while it writes
            ('remove', ['epoch_1.pth', 'epoch_2.pth'], 3),  # before it removes the old one
        ],
    )
    def test_killed(self, killed_in, left, epochs, tmp_path, monkeypatch):
        """Only the rename makes a file appear; what a killed training left is cleared away."""
        keep_one = dict(max_keep_ckpts=1)
        build(tmp_path, epochs=1, checkpoint=keep_one).train()
        with monkeypatch.context() as patch:
            patch.setattr(os, killed_in, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                build(tmp_path, checkpoint=keep_one, resume=True).train()
        assert checkpoints(tmp_path) == left
        build(tmp_path, epochs=epochs, checkpoint=keep_one, resume=True).train()
        assert checkpoints(tmp_path) == [f'epoch_{epochs}.pth']

    def test_broken_weights_are_not_saved(self, tmp_path):
        runner = build(tmp_path, lr=1e30)
        with pytest.raises(ValueError, match='not finite .NaN or infinity.: .*neck.weight'):
            runner.train()
        for name in checkpoints(tmp_path):
            state = read_checkpoint(tmp_path / name)['state_dict']
            assert all(value.isfinite().all() for value in state.values())


class TestLoading:
    def test_evaluation_refuses_what_is_missing(self, trained, tmp_path):
        build(tmp_path / 'test', load_from=str(trained)).test()
        checkpoint = read_checkpoint(trained)
        del checkpoint['state_dict']['head.fc.bias']
        torch.save(checkpoint, tmp_path / 'part.pth')
        with pytest.raises(ValueError, match=r'Model: 1 missing \(head.fc.bias\)'):
            build(tmp_path / 'test', load_from=str(tmp_path / 'part.pth')).test()

    def test_evaluation_refuses_other_classes(self, trained, tmp_path):
        with pytest.raises(ValueError, match=r'head.fc.weight \(3, 1\) instead of \(2, 1\)'):
            build(tmp_path / 'test', ('a', 'b'), load_from=str(trained)).test()
        with pytest.raises(ValueError, match="learnt 3 classes, .* 3: class 2 is 'c', not 'd'"):
            build(tmp_path / 'test', ('a', 'b', 'd'), load_from=str(trained)).test()

    def test_fine_tuning_starts_heads_of_other_classes_fresh(self, trained, tmp_path, told):
        build(tmp_path / 'fine', ('a', 'd'), load_from=str(trained)).train()
        (line,) = (line for line in told if 'start fresh' in line)
        assert 'head.fc.weight (3, 1) instead of (2, 1)' in line

    def test_fine_tuning_refuses_the_rest_unless_told(self, trained, tmp_path, told):
        checkpoint = read_checkpoint(trained)
        del checkpoint['state_dict']['neck.bias']
        torch.save(checkpoint, tmp_path / 'part.pth')
        path = str(tmp_path / 'part.pth')
        with pytest.raises(ValueError, match=r'1 missing \(neck.bias\)'):
            build(tmp_path / 'fine', load_from=path).train()
        build(tmp_path / 'fine', load_from=path, fit=dict(partial=True)).train()
        assert any('in part, the rest starts fresh: 1 missing (neck.bias)' in line for line in told)


class TestResuming:
    def test_takes_the_newest_that_can_be_read(self, trained, told):
        (trained.parent / 'last_checkpoint').write_text('', encoding='utf-8')
        trained.write_bytes(trained.read_bytes()[:500])
        build(trained.parent, epochs=3, resume=True).train()
        assert any('epoch_1.pth, the newest checkpoint that can be read' in line for line in told)
        assert read_checkpoint(trained.parent / 'epoch_3.pth')['meta']['epoch'] == 3

    def test_starts_anew_without_any(self, tmp_path, told):
        build(tmp_path, epochs=1, resume=True).train()
        assert any(
            f'No checkpoint in {tmp_path}: the training starts anew' in line for line in told
        )

    def test_says_what_differs_and_keeps_the_rate(self, trained, told):
        runner = build(trained.parent, epochs=3, lr=0.7, resume=True)
        runner.train()
        (line,) = (line for line in told if 'not that of the checkpoint' in line)
        assert "optimizer.lr 0.1 -> 0.7 (the checkpoint's stays)" in line
        assert "max_epochs 2 -> 3 (the config's from now on)" in line
        assert runner.optim_wrapper.get_lr()['lr'] == [0.1]

    def test_refuses_other_classes(self, trained):
        with pytest.raises(ValueError, match=r'head.fc.weight \(3, 1\) instead of \(2, 1\)'):
            build(trained.parent, ('a', 'b'), resume=True).train()
        with pytest.raises(ValueError, match="class 0 is 'a', not 'x'"):
            build(trained.parent, ('x', 'b', 'c'), resume=True).train()

    def test_another_training_in_the_work_directory(self, trained, monkeypatch):
        assert (trained.parent / NAME).read_text(encoding='utf-8') == ''  # given back
        held = BlockingIOError(errno.EAGAIN, 'held')
        monkeypatch.setattr('fcntl.lockf', lambda *_: (_ for _ in ()).throw(held))
        with pytest.raises(ValueError, match='is in use by another training'):
            build(trained.parent, resume=True).train()
        build(trained.parent, load_from=str(trained)).test()  # may look on


class TestResumedState:
    """What a training cannot go on from is refused in one sentence; what is missing is said."""

    def resume(self, path, change, **kwargs):
        content = read_checkpoint(path)
        change(content)
        torch.save(content, path)
        build(path.parent, epochs=3, load_from=str(path), resume=True, **kwargs).train()

    @pytest.mark.parametrize(
        'part, value, sentence',
        [
            ('meta', None, 'meta is None, but has to be a dict'),
            ('meta', [], r'meta is \[\], but'),
            ('meta.epoch', float('nan'), 'meta.epoch is nan, but has to be a whole number'),
            ('meta.epoch', 10**30, 'meta.epoch is 1000000000000000000000000000000, but'),
            ('meta.epoch', -1, 'meta.epoch is -1, but'),
            ('meta.epoch', '2', 'meta.epoch is 2, but'),
            ('meta.epoch', True, 'meta.epoch is True, but'),
            ('meta.epoch', KeyError, 'meta has no epoch'),
            ('meta.iter', 1.5, 'meta.iter is 1.5, but'),
            ('meta.iter', KeyError, 'meta has no iter'),
            ('meta.seed', -1, 'meta.seed is -1, but has to be a whole number'),
            ('meta.seed', 2**40, 'meta.seed is 1099511627776, but'),
            ('meta.seed', 'a', 'meta.seed is a, but'),
            ('meta.cfg', 7, 'meta.cfg is 7, but has to be text'),
            ('message_hub', KeyError, 'has no message_hub'),
            ('message_hub', [1], r'message_hub is \[1\], but'),
            ('message_hub.runtime_info', None, 'message_hub.runtime_info is None, but'),
            ('message_hub.log_scalars', 'a', 'message_hub.log_scalars is a, but'),
            ('message_hub.resumed_keys', KeyError, 'message_hub has no resumed_keys'),
            ('message_hub.runtime_info.best_score', 'a', 'best_score is a, but has to be a finite'),
            ('message_hub.runtime_info.best_score', float('nan'), 'best_score is nan, but'),
            (
                'message_hub.runtime_info.a\n2026 - all is well',
                1,
                r'the key a\\n2026 - all is well',
            ),
            ('optimizer', 7, 'optimizer is 7, but has to be a dict'),
            ('optimizer', {}, 'optimizer has no state'),
            ('optimizer.param_groups', {}, 'optimizer: param_groups is {}, but has to be a list'),
            (
                'optimizer.param_groups',
                [],
                'its optimizer has 0 parameters in 0 groups, this one 4',
            ),
            ('optimizer.param_groups.0.params', [0], 'its optimizer has 1 parameters in 1 groups'),
            ('optimizer.param_groups.0.params', ['a'], r'params\[0\] is a, but'),
            ('optimizer.param_groups.0.lr', float('nan'), 'lr is nan, but has to be a finite'),
            ('optimizer.state', [], r'state is \[\], but has to be a dict'),
            ('optimizer.state.0', 7, r'state\[0\] is 7, but has to be a dict'),
            ('optimizer.state.0.momentum_buffer', torch.ones(9), r'shape \(9,\), the parameter'),
            ('param_schedulers', 7, 'param_schedulers is 7, but has to be a list'),
            ('param_schedulers', [], r'it has 0 schedules .*, the config has 1'),
            ('param_schedulers', [7], r'\[0\] is 7, but has to be a dict'),
            ('param_schedulers.0.last_step', 'a', r'\[0\].last_step is a, which is none of'),
            ('param_schedulers.0.step', 1, r'\[0\].step is 1, which is none of MultiStepLR'),
            ('param_schedulers.0.milestones', [1], r'\[0\].milestones is \[1\], which is none'),
            ('param_schedulers.0.last_step', 10**30, 'last_step is 10+, which is none'),
            ('param_schedulers.0.gamma', float('nan'), 'gamma is nan, which is none'),
            ('param_schedulers.0.base_values', ['a'], r"base_values is \['a'\], which is none"),
            ('param_schedulers.0.base_values', [], r'base_values is \[\], which is none'),
            ('param_schedulers.0.param_name', '__class__', 'param_name is __class__, which is'),
            ('param_schedulers.0._last_value', [float('inf')], r'_last_value is \[inf\], which'),
            ('optimizer.param_groups.0.lr', -1.0, 'none of SGD: Invalid learning rate: -1.0'),
            ('optimizer.param_groups.0.lr', torch.tensor(float('nan')), 'lr is a value of type T'),
            ('optimizer.param_groups.0.momentum', 'a', 'momentum is a, but has to be like 0.9'),
            ('optimizer.param_groups.0.momentum', -1.0, 'none of SGD: Invalid momentum value'),
            ('optimizer.param_groups.0.weight_decay', float('inf'), 'weight_decay is inf, but'),
            ('optimizer.param_groups.0.weight_decay', 10**400, 'weight_decay is a number of 1,329'),
            ('optimizer.param_groups.0.nesterov', 'a', 'nesterov is a, but has to be like False'),
            ('optimizer.param_groups.0.foreach', 'a', 'foreach is a, but has to be like None'),
            ('optimizer.state.0.momentum_buffer', 'a', 'momentum_buffer is a, or is not finite'),
            ('optimizer.state.0.momentum_buffer', 1.0, 'momentum_buffer is 1.0, or is not finite'),
            ('optimizer.state.0.momentum_buffer', torch.ones(()), r'shape \(\), the parameter'),
            (
                'optimizer.state.0.momentum_buffer',
                torch.full((1, 1), float('nan')),
                'momentum_buffer is a value of type Tensor, or is not finite',
            ),
            (
                'message_hub.log_scalars',
                dict.fromkeys(map(str, range(10_001)), 1),
                '10,001 entries',
            ),
            ('message_hub.resumed_keys', dict.fromkeys(map(str, range(10_001)), 1), '10,001 entr'),
        ],
    )
    def test_odd(self, part, value, sentence, tmp_path):
        schedule = [dict(type='MultiStepLR', milestones=[5], by_epoch=True)]
        build(tmp_path, epochs=1, param_scheduler=schedule).train()

        def change(content):
            *parents, last = part.split('.', 4 if 'best' in part else 9)
            for name in parents:
                content = content[int(name) if name.isdigit() else name]
            last = int(last) if last.isdigit() else last
            content.pop(last) if value is KeyError else content.update({last: value})

        with pytest.raises(ValueError, match=sentence) as error:
            self.resume(tmp_path / 'epoch_1.pth', change, param_scheduler=schedule)
        assert str(error.value).isprintable()

    @pytest.mark.parametrize(
        'key, value, sentence',
        [
            ('betas', 'a', 'betas is a, but has to be like'),
            ('betas', (0.9,), r'betas is \(0.9,\), but'),
            ('betas', (2.0, 3.0), 'none of AdamW: Invalid beta parameter'),
            ('betas', (0.9, float('nan')), r'betas is \(0.9, nan\), but'),
            ('eps', None, 'eps is None, but has to be like 1e-08'),
            ('capturable', True, 'none of AdamW: '),
            ('step', 'a', 'step is a, or is not finite'),
            ('step', torch.ones(2, 3), 'step is a value of type Tensor, or is not finite'),
            ('step', float('nan'), 'step is nan, or is not finite'),
            ('exp_avg', None, 'exp_avg is None, or is not finite'),
            ('exp_avg_sq', KeyError, 'exp_avg_sq is None, or is not finite'),
            ('exp_avg', torch.ones(1), r'exp_avg has the shape \(1,\), the parameter \(1, 1\)'),
        ],
    )
    def test_odd_state_of_adam(self, key, value, sentence, tmp_path):
        adam = dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)))
        build(tmp_path, epochs=1, parts=adam).train()

        def change(content):
            state = content['optimizer']
            part = state['param_groups' if key in state['param_groups'][0] else 'state'][0]
            part.pop(key) if value is KeyError else part.update({key: value})

        with pytest.raises(ValueError, match=sentence) as error:
            self.resume(tmp_path / 'epoch_1.pth', change, parts=adam)
        assert str(error.value).isprintable()

    def test_what_the_config_of_a_checkpoint_says_is_escaped(self, trained, told):
        text = 'train_cfg = {"a\x1b[2J\\n2026 - all is well": "\\x1b\u202e"}'
        self.resume(trained, lambda content: content['meta'].update(cfg=text))
        lines = [line for line in told if line.startswith('The config is not that of the')]
        assert len(lines) == 1 and lines[0].isprintable()

    @pytest.mark.parametrize('text', ['-' * 100_000 + '1', '{[1]: 2}', 'a' * 2_000_000])
    def test_a_config_that_cannot_be_read_is_said(self, text, trained, told):
        self.resume(trained, lambda content: content['meta'].update(cfg=f'model = {text}'))
        lines = [line for line in told if line.startswith('The config of the checkpoint cannot')]
        assert len(lines) == 1 and lines[0].isprintable() and len(lines[0]) < 400

    @pytest.mark.parametrize('key', ['optimizer', 'param_schedulers'])
    def test_what_is_missing_is_said(self, key, tmp_path, told):
        schedule = [dict(type='MultiStepLR', milestones=[5], by_epoch=True)]
        build(tmp_path, epochs=1, param_scheduler=schedule).train()
        self.resume(
            tmp_path / 'epoch_1.pth', lambda content: content.pop(key), param_scheduler=schedule
        )
        assert any(f'({key}): the training goes on without' in line for line in told)

    @pytest.mark.parametrize('before, said', [(4, True), (1, False), ('a', False), (True, False)])
    def test_another_number_of_processes_is_said(self, before, said, trained, told):
        self.resume(trained, lambda content: content['meta'].update(num_processes=before))
        lines = [line for line in told if 'a step has 2 images instead of 8' in line]
        assert bool(lines) == said

    def test_all_is_there(self, tmp_path, told):
        schedule = [
            dict(type='LinearLR', start_factor=0.1),
            dict(type='MultiStepLR', milestones=[1]),
        ]
        build(tmp_path, epochs=1, param_scheduler=schedule).train()
        self.resume(tmp_path / 'epoch_1.pth', lambda content: None, param_scheduler=schedule)
        assert not any('goes on without' in line for line in told)


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / 'precious').write_text('mine', encoding='utf-8')
    (tmp_path / f'a.pth{atomic.UNFINISHED}').symlink_to(tmp_path / 'precious')
    with pytest.raises(OSError, match='a.pth'):
        atomic.write_atomic(tmp_path / 'a.pth', b'new')
    (tmp_path / 'b.pth').symlink_to(tmp_path / 'precious')
    atomic.write_atomic(tmp_path / 'b.pth', b'new')  # takes the link's place
    assert (tmp_path / 'precious').read_text(encoding='utf-8') == 'mine'
    assert (tmp_path / 'b.pth').read_bytes() == b'new'


class TestForeignNames:
    """No file is removed because a checkpoint names it, but those that the hook itself wrote."""

    def resume(self, path, info, work_dir=None, **checkpoint):
        """Resume from a checkpoint whose message hub has been changed, for two epochs."""
        content = read_checkpoint(path)
        content['message_hub']['runtime_info'].update(info)
        torch.save(content, path)
        checkpoint = dict(save_best='mAP', **checkpoint)
        build(
            work_dir or path.parent,
            epochs=4,
            checkpoint=checkpoint,
            load_from=str(path),
            resume=True,
        ).train()

    @pytest.mark.parametrize(
        'name',
        [
            '{}/precious.txt',
            '../precious.txt',
            './../precious.txt',
            '../other/epoch_1.pth',
            '{}/other/epoch_1.pth',
            '{}/other',
            '..',
            '.',
            '',
            'notes.txt',
            'epoch_one.pth',
            'epoch_1.pth/../notes.txt',
            'epoch_1.pth\n',
            'link/epoch_1.pth',
            'epoch_7.pth',  # a link
            'epoch_8.pth',  # a folder
            'best_/../../precious_epoch_1.pth',
            'e\0poch_1.pth',
            '\ud800',
            7,
            None,
            ['epoch_1.pth'],
        ],
    )
    @pytest.mark.parametrize('key', ['outdated_checkpoints', 'best_ckpt', 'best_ckpt_mAP'])
    def test_nothing_else_is_removed(self, name, key, trained, tmp_path, told):
        (tmp_path / 'precious.txt').write_text('mine', encoding='utf-8')
        (tmp_path / 'precious_epoch_1.pth').write_text('mine', encoding='utf-8')
        for folder in (tmp_path / 'other', trained.parent / 'epoch_8.pth'):
            folder.mkdir()
            (folder / 'epoch_1.pth').write_text('mine', encoding='utf-8')
        (trained.parent / 'notes.txt').write_text('mine', encoding='utf-8')
        (trained.parent / 'epoch_7.pth').symlink_to(tmp_path / 'precious.txt')
        (trained.parent / 'link').symlink_to(tmp_path / 'other')
        before = set(tmp_path.rglob('*'))
        name = name.format(tmp_path) if isinstance(name, str) else name
        if key != 'outdated_checkpoints' and isinstance(name, str):
            name = os.path.join(trained.parent, name)
        value = name if key != 'outdated_checkpoints' else [name]
        self.resume(trained, {key: value, 'best_score': -1.0})
        gone = before - set(tmp_path.rglob('*'))
        assert gone == set()
        assert (trained.parent / 'epoch_7.pth').is_symlink()
        assert any(line.startswith(('Not removed: ', 'Not touched: ')) for line in told)
        assert all(line.isprintable() for line in told if line.startswith('Not '))

    @pytest.mark.parametrize('value', [7, 'epoch_1.pth', None, {'epoch_1.pth': 1}, (), True])
    @pytest.mark.parametrize('key', ['outdated_checkpoints', 'keep_ckpt_ids'])
    def test_another_kind_of_value(self, key, value, trained):
        self.resume(trained, {key: value}, max_keep_ckpts=5)
        assert {'epoch_1.pth', 'epoch_2.pth'} <= set(checkpoints(trained.parent))

    @pytest.mark.parametrize(
        'steps', [['../../precious'], [-1], [1.5], [10**600], [None, True], [[1]], ['1'] * 9]
    )
    def test_other_steps_than_numbers(self, steps, trained, tmp_path):
        (tmp_path / 'precious.pth').write_text('mine', encoding='utf-8')
        self.resume(trained, {'keep_ckpt_ids': steps}, max_keep_ckpts=1)
        assert (tmp_path / 'precious.pth').exists()
        assert {'epoch_1.pth', 'epoch_2.pth'} <= set(checkpoints(trained.parent))

    def test_a_training_in_another_folder_leaves_the_first_as_it_was(self, tmp_path, told):
        keep = dict(max_keep_ckpts=2, save_best='mAP')
        build(tmp_path / 'a', epochs=2, checkpoint=keep).train()
        build(tmp_path / 'b', epochs=1, checkpoint=keep).train()  # another one, with its own
        before = checkpoints(tmp_path / 'a')
        self.resume(tmp_path / 'a' / 'epoch_2.pth', {}, tmp_path / 'b', max_keep_ckpts=2)
        assert checkpoints(tmp_path / 'a') == before
        assert {'epoch_1.pth', 'best_mAP_epoch_1.pth'} <= set(checkpoints(tmp_path / 'b'))
        assert any('the files that it names stay' in line for line in told)

    def test_what_the_hook_wrote_is_removed(self, tmp_path):
        keep = dict(max_keep_ckpts=2, save_best='mAP')
        build(tmp_path / 'a', epochs=2, checkpoint=keep).train()
        self.resume(tmp_path / 'a' / 'epoch_2.pth', {}, max_keep_ckpts=2)
        expected = ['best_mAP_epoch_4.pth', 'epoch_3.pth', 'epoch_4.pth']
        assert checkpoints(tmp_path / 'a') == expected

    def test_fewer_are_kept_from_now_on(self, tmp_path):
        build(tmp_path / 'a', epochs=3, checkpoint=dict(max_keep_ckpts=3)).train()
        path = tmp_path / 'a' / 'epoch_3.pth'
        build(
            tmp_path / 'a',
            epochs=4,
            checkpoint=dict(max_keep_ckpts=1),
            load_from=str(path),
            resume=True,
        ).train()
        assert checkpoints(tmp_path / 'a') == ['epoch_4.pth']

    def test_names_of_a_template(self, tmp_path):
        template = dict(filename_tmpl='step.{:03d}.pth', max_keep_ckpts=1)
        build(tmp_path / 'a', epochs=2, checkpoint=template).train()
        assert checkpoints(tmp_path / 'a') == ['step.002.pth']


def test_what_a_hook_expects_ends_with_the_loading(trained, tmp_path):
    runner = build(tmp_path / 'fine', load_from=str(trained))
    runner.train()
    state = CheckpointLoader.load_checkpoint(str(trained))['state_dict']
    del state['neck.bias']
    assert runner.model.load_state_dict(state, strict=False).missing_keys == ['neck.bias']
