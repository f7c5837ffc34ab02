import os
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from lesa_mmdet.engine.hooks import AtomicCheckpointHook
from lesa_mmdet.engine.resume import (
    check_start,
    find_newest,
    list_saved,
    parse_config,
    place_of,
    require_same_training,
)
from lesa_mmdet.upstream import CheckpointHook
from lesa_mmdet.utils.errors import UserFileNotFoundError, UserValueError

from helpers.paths import DEMO


def save(path, time, **content):
    content = {'meta': {}, 'message_hub': {}, 'optimizer': {}, 'state_dict': {}, **content}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    os.utime(path, (time, time))


class TestNewest:
    def test_by_number_and_whole(self, tmp_path, told):
        save(tmp_path / 'epoch_9.pth', 400)
        save(tmp_path / 'epoch_10.pth', 200)
        save(tmp_path / 'best_coco_bbox_mAP_epoch_12.pth', 500)
        assert find_newest(tmp_path) == str(tmp_path / 'epoch_10.pth')
        save(tmp_path / 'epoch_11.pth', 100, optimizer=None)
        (tmp_path / 'epoch_12.pth').write_bytes((tmp_path / 'epoch_10.pth').read_bytes()[:300])
        (tmp_path / 'epoch_13.pth').mkdir()
        os.mkfifo(tmp_path / 'epoch_14.pth')
        assert find_newest(tmp_path) == str(tmp_path / 'epoch_10.pth')
        assert any('Not resumed from' in line and 'epoch_12.pth is not' in line for line in told)
        assert any('epoch_11.pth has no optimizer' in line for line in told)
        assert f'Resume from {tmp_path}/epoch_10.pth, the newest' in told[-1]

    def test_a_link_to_itself_is_none(self, tmp_path):
        (tmp_path / 'epoch_2.pth').symlink_to('epoch_2.pth')
        (tmp_path / 'epoch_3.pth').symlink_to('gone.pth')
        assert find_newest(tmp_path) is None

    def test_none(self, tmp_path):
        assert find_newest(tmp_path) is None
        assert find_newest(tmp_path / 'none', 's3://bucket/run') is None

    def test_none_that_can_be_read(self, tmp_path):
        (tmp_path / 'epoch_1.pth').write_bytes(b'')
        with pytest.raises(ValueError, match='no checkpoint of .* can be resumed from: .*epoch_1'):
            find_newest(tmp_path)

    @pytest.mark.parametrize(
        'template, names',
        [
            ('lesa_{}.pth', ['lesa_2.pth', 'lesa_10.pth']),
            ('lesa-{:03d}.ckpt', ['lesa-002.ckpt', 'lesa-010.ckpt']),
            ('2nd_{0}_of_12.pth', ['2nd_2_of_12.pth', '2nd_10_of_12.pth']),
            ('iter_{}.pth', ['epoch_99.pth', 'iter_7.pth']),
            ('below/epoch_{}.pth', ['below/epoch_9.pth', 'below/epoch_10.pth']),
            ('latest.pth', ['epoch_99.pth', 'latest.pth']),
        ],
    )
    def test_any_name_and_folder(self, template, names, tmp_path):
        work_dir, folder = tmp_path / 'run', tmp_path / 'elsewhere' / 'run'
        work_dir.mkdir()
        folder.mkdir(parents=True)
        for place in (work_dir, folder):
            for time, name in enumerate(names):
                (place / name).parent.mkdir(exist_ok=True)
                save(place / name, 100 - time)
            assert find_newest(work_dir, str(place), template) == str(place / names[-1])
            (work_dir / 'last_checkpoint').write_text(str(place / names[-1]), encoding='utf-8')
            assert find_newest(work_dir, str(place), template) == str(place / names[-1])
            (work_dir / 'last_checkpoint').unlink()

    def test_what_mmengine_has_noted_comes_first(self, tmp_path):
        """Of another name; higher numbers are left over from another run."""
        other = tmp_path / 'mine.ckpt'
        save(other, 100)
        for number in (1, 2, 3):
            save(tmp_path / f'epoch_{number}.pth', 200)
        note = tmp_path / 'last_checkpoint'
        note.write_text(f'{other}\n', encoding='utf-8')
        assert find_newest(tmp_path) == str(other)
        note.write_text(str(tmp_path / 'epoch_2.pth'), encoding='utf-8')
        assert list_saved(tmp_path) == [str(tmp_path / f'epoch_{n}.pth') for n in (2, 1)]
        (tmp_path / 'epoch_2.pth').write_bytes(b'')
        assert find_newest(tmp_path) == str(tmp_path / 'epoch_1.pth')

    def test_what_a_killed_training_has_not_noted_any_more(self, tmp_path):
        save(tmp_path / 'epoch_1.pth', 300)
        save(tmp_path / 'epoch_2.pth', 100)
        save(tmp_path / 'epoch_3.pth', 200)
        note = tmp_path / 'last_checkpoint'
        note.write_text(str(tmp_path / 'epoch_2.pth'), encoding='utf-8')
        os.utime(note, (150, 150))
        assert list_saved(tmp_path) == [str(tmp_path / f'epoch_{n}.pth') for n in (3, 2, 1)]
        note.write_text('', encoding='utf-8')  # killed while it wrote
        assert list_saved(tmp_path) == [str(tmp_path / f'epoch_{n}.pth') for n in (3, 2, 1)]

    @pytest.mark.parametrize(
        'named, message',
        [
            ('gone.pth', 'does not exist: name another with --resume PATH'),
            ('/gone/epoch_1.pth', 'does not exist'),
            ('{folder}', 'is no file'),
            ('{folder}/pipe', 'is no file'),
            ('https://host/epoch_1.pth', 'is not in .*, where it is saved'),
            ('s3://other/epoch_1.pth', 'is not in'),
            ('\0', 'does not exist'),
            ('{folder}/other/epoch_1.pth', 'is not in .*: name another with --resume PATH'),
            ('{folder}/../elsewhere.pth', 'is not in'),
            ('{folder}/link.pth', 'is not in'),
            ('{folder}/new\x1b[2J.pth', r'new\\x1b\[2J.pth as the last checkpoint, which is not'),
            ('gone\x1b[2J', r'gone\\x1b\[2J as the last checkpoint'),
            ('a' * 9000, 'does not exist'),
        ],
    )
    def test_a_note_that_cannot_be_followed_is_no_fresh_start(self, named, message, tmp_path):
        save(tmp_path / 'epoch_1.pth', 100)
        os.mkfifo(tmp_path / 'pipe')
        (tmp_path / 'other').mkdir()
        for name in ('other/epoch_1.pth', '../elsewhere.pth', 'new\x1b[2J.pth'):
            save(tmp_path / name, 100)
        (tmp_path / 'link.pth').symlink_to(tmp_path / '../elsewhere.pth')
        (tmp_path / 'last_checkpoint').write_text(named.format(folder=tmp_path), encoding='utf-8')
        for folder in (None, 's3://bucket/run'):
            with pytest.raises((UserValueError, UserFileNotFoundError), match=message):
                find_newest(tmp_path, folder)

    def test_an_address_in_the_folder_is_followed(self, tmp_path):
        (tmp_path / 'last_checkpoint').write_text('s3://bucket/run/epoch_1.pth', encoding='utf-8')
        assert list_saved(tmp_path, 's3://bucket/run') == ['s3://bucket/run/epoch_1.pth']

    @pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
    def test_a_note_that_is_no_file(self, make, tmp_path):
        make(tmp_path / 'last_checkpoint')
        with pytest.raises(UserValueError, match='last_checkpoint is no file'):
            find_newest(tmp_path)


@pytest.mark.parametrize(
    'hook, folder, template',
    [
        ({}, 'run', 'epoch_{}.pth'),
        (dict(by_epoch=False), 'run', 'iter_{}.pth'),
        (dict(filename_tmpl='lesa_{}.pth', out_dir='elsewhere'), 'elsewhere/run', 'lesa_{}.pth'),
        (None, 'run', 'epoch_{}.pth'),
    ],
)
def test_place_is_that_of_the_hook(hook, folder, template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hooks = [] if hook is None else [AtomicCheckpointHook(**hook)]
    runner = SimpleNamespace(
        hooks=hooks, work_dir=str(tmp_path / 'run'), logger=MMLogger('any'), message_hub=None
    )
    place = place_of(runner)
    assert (os.path.abspath(place[0]), place[1]) == (str(tmp_path / folder), template)
    for hook in hooks:
        CheckpointHook.before_train(hook, runner)
        assert (hook.out_dir, hook.filename_tmpl) == place


class TestStart:
    def test_is_looked_for(self, tmp_path):
        (tmp_path / 'a.pth').touch()
        check_start(None, {})
        check_start('auto', {'load_from': 'gone.pth'})
        check_start(str(tmp_path / 'a.pth'), {})
        check_start(None, {'load_from': 'https://host/a.pth'})
        with pytest.raises(FileNotFoundError, match='^--resume: gone.pth does not exist'):
            check_start('gone.pth', {})
        with pytest.raises(FileNotFoundError, match='^load_from: gone.pth does not exist'):
            check_start(None, {'load_from': 'gone.pth'})

    def test_is_no_folder(self, tmp_path):
        with pytest.raises(ValueError, match='--resume: .* is a folder, but has to be a file'):
            check_start(str(tmp_path), {})


class TestConfig:
    def test_text_of_a_config_is_read_without_running_it(self):
        cfg = Config.fromfile(DEMO)
        assert parse_config(cfg.pretty_text) == cfg.to_dict()

    @pytest.mark.parametrize(
        'text', ['import os', 'a = open("executed", "w")', 'a = [b for b in ()]', 'a =', 'a.b = 1']
    )
    def test_code_is_refused(self, text, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError):
            parse_config(text)
        assert not os.listdir(tmp_path)

    @pytest.fixture
    def cfg(self):
        return Config.fromfile(DEMO)

    def changed(self, cfg, **options):
        new = Config.fromfile(DEMO)
        new.merge_from_dict(options)
        return {'meta': {'cfg': cfg.pretty_text}}, new

    def test_the_same_says_nothing(self, cfg, told):
        require_same_training(*self.changed(cfg, work_dir='other', log_level='WARNING'))
        require_same_training({'meta': {}}, cfg)
        assert told == []

    def test_what_differs_is_said_with_what_becomes_of_it(self, cfg, told):
        options = {
            'optim_wrapper.optimizer.lr': 0.5,
            'train_cfg.max_epochs': 99,
            'model.backbone.input_size': (96, 96),
        }
        require_same_training(*self.changed(cfg, **options))
        (line,) = told
        lr = cfg.optim_wrapper.optimizer.lr
        assert f"optim_wrapper.optimizer.lr {lr} -> 0.5 (the checkpoint's stays)" in line
        assert (
            f"train_cfg.max_epochs {cfg.train_cfg.max_epochs} -> 99 (the config's from now on)"
            in line
        )
        assert 'model.backbone.input_size.0 160 -> 96' in line

    def test_a_config_in_pure_python_is_the_same(self, tmp_path, told):
        for name, text in (
            ('lazy', 'from torch.optim import SGD\noptim_wrapper = dict(optimizer=dict(type=SGD))'),
            ('text', "optim_wrapper = dict(optimizer=dict(type='SGD'))"),
        ):
            (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
        configs = [Config.fromfile(tmp_path / f'{name}.py') for name in ('lazy', 'text')]
        for old, new in product(configs, configs):
            require_same_training({'meta': {'cfg': old.pretty_text}}, new)
        assert not told
        new.optim_wrapper.optimizer.type = 'Adam'
        with pytest.raises(UserValueError, match='whose state Adam cannot take'):
            require_same_training({'meta': {'cfg': configs[0].pretty_text}}, new)

    def test_another_optimizer_is_refused(self, cfg):
        old = cfg.optim_wrapper.optimizer.type
        with pytest.raises(ValueError, match=f'optimizer {old}, whose state Adam cannot take'):
            options = {'optim_wrapper.optimizer': dict(type='Adam', lr=1, _delete_=True)}
            require_same_training(*self.changed(cfg, **options))
