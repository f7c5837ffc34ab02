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
