"""When the demo goes on, and when it starts over."""

import runpy

import pytest
import torch

from helpers.paths import ROOT

DEMO = runpy.run_path(str(ROOT / 'tools' / 'demo.py'))


@pytest.mark.parametrize('name', ['epoch_3.pth', 'lesa_3.pth'])
@pytest.mark.parametrize(
    'options, expected',
    [
        ([], ['--resume']),
        (['--cfg-options', 'train_cfg.max_epochs=3'], []),
        (['--amp', '--cfg-options', 'train_cfg.max_epochs=4', 'resume=False'], ['--resume']),
    ],
)
def test_it_goes_on_unless_it_was_finished(name, options, expected, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    meta = dict(epoch=3, iter=12)
    torch.save(dict(meta=meta, message_hub={}, optimizer={}, state_dict={}), path)
    (tmp_path / 'last_checkpoint').write_text(str(path), encoding='utf-8')
    cfg = DEMO['load_config'](str(ROOT / DEMO['CONFIG']), DEMO['read_options'](options))
    assert DEMO['resume'](tmp_path, cfg) == expected


def test_it_starts_where_nothing_is(tmp_path):
    assert DEMO['resume'](tmp_path / 'none', None) == []


@pytest.mark.parametrize(
    'cores, batch, processes', [(1, 8, 1), (2, 8, 2), (64, 8, 2), (4, 6, 1), (4, 12, 3), (4, 2, 1)]
)
def test_each_process_has_as_many_images_and_enough_for_batch_norm(
    cores, batch, processes, monkeypatch
):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(cores)))
    assert DEMO['count_processes'](batch) == processes


def test_a_gpu_has_one_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert DEMO['count_processes'](8) == 1
