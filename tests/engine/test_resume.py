import os

import pytest
import torch
from mmengine.config import Config

from lesa_mmdet.engine.resume import check_start, find_newest, parse_config, require_same_training

from helpers.paths import DEMO


def save(path, time, **content):
    content = {'meta': {}, 'message_hub': {}, 'optimizer': {}, 'state_dict': {}, **content}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    os.utime(path, (time, time))


class TestNewest:
    def test_by_time_and_whole(self, tmp_path, told):
        save(tmp_path / 'epoch_9.pth', 100)
        save(tmp_path / 'epoch_10.pth', 200)
        save(tmp_path / 'iter_7.pth', 300)
        save(tmp_path / 'best_coco_bbox_mAP_epoch_10.pth', 400)
        assert find_newest(tmp_path) == tmp_path / 'iter_7.pth'
        (tmp_path / 'iter_7.pth').write_bytes((tmp_path / 'iter_7.pth').read_bytes()[:300])
        save(tmp_path / 'epoch_11.pth', 500, optimizer=None)
        assert find_newest(tmp_path) == tmp_path / 'epoch_10.pth'
        assert any('Not resumed from' in line and 'iter_7.pth is not' in line for line in told)
        assert any('epoch_11.pth has no optimizer' in line for line in told)
        assert f'Resume from {tmp_path}/epoch_10.pth, the newest' in told[-1]

    def test_none(self, tmp_path):
        assert find_newest(tmp_path) is None

    def test_none_that_can_be_read(self, tmp_path):
        (tmp_path / 'epoch_1.pth').write_bytes(b'')
        with pytest.raises(ValueError, match='no checkpoint in .* can be resumed from: .*epoch_1'):
            find_newest(tmp_path)


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
        assert "train_cfg.max_epochs 10 -> 99 (the config's from now on)" in line
        assert 'model.backbone.input_size.0 160 -> 96' in line

    def test_another_optimizer_is_refused(self, cfg):
        old = cfg.optim_wrapper.optimizer.type
        with pytest.raises(ValueError, match=f'optimizer {old}, whose state Adam cannot take'):
            options = {'optim_wrapper.optimizer': dict(type='Adam', lr=1, _delete_=True)}
            require_same_training(*self.changed(cfg, **options))
