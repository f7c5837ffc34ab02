"""The command line tools that need no training."""

import pytest
import torch

from lesa_mmdet import LESA_ResNet
from lesa_mmdet.checkpoints import convert_official
from lesa_mmdet.checkpoints.files import read_checkpoint

from helpers.golden import golden_cases


@pytest.mark.parametrize('layout', ['net', 'state_dict'])
@pytest.mark.parametrize('case', golden_cases('backbone')[:1])
def test_convert_checkpoint(case, layout, run, tmp_path):
    state = case.state_dict()
    prefix = 'module.' if layout == 'net' else 'backbone.'
    torch.save({layout: {prefix + k: v for k, v in state.items()}}, tmp_path / 'official.pth')
    out = run('tools/convert_checkpoint.py', tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert f'{len(state)} tensors' in out
    converted = read_checkpoint(tmp_path / 'ours.pth')['state_dict']
    kept = '' if layout == 'net' else 'backbone.'
    expected = {kept + key: value for key, value in convert_official(state).items()}
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)
    backbone = LESA_ResNet(depth=50, input_size=(128, 128))
    backbone.load_state_dict({k.removeprefix('backbone.'): v for k, v in converted.items()})


def test_convert_checkpoint_refuses_a_file_without_weights(run, tmp_path):
    torch.save({'epoch': 3}, tmp_path / 'other.pth')
    out = run(
        'tools/convert_checkpoint.py', tmp_path / 'other.pth', tmp_path / 'x.pth', succeeds=False
    )
    assert "has no weights, only ['epoch']" in out
    assert not (tmp_path / 'x.pth').exists()


def test_check_env_accepts_this_environment(run):
    assert 'has all that is needed' in run('tools/check_env.py')
