"""Checkpoints under this package's names, with weights alone."""

import mmcv
import numpy as np
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


def test_convert_checkpoint_from_resnet(run, tmp_path):
    """A detector with convolutions becomes one with LESA, and again it stays what it is."""
    arguments = dict(depth=50, base_channels=16, input_size=(64, 64))
    config = tmp_path / 'config.py'
    config.write_text(
        f"model = dict(backbone=dict(type='LESA_ResNet', **{arguments}))\n", encoding='utf-8'
    )
    plain = LESA_ResNet(operator=None, **arguments).state_dict()
    given = {f'backbone.{key}': value for key, value in plain.items()}
    given['bbox_head.weight'] = torch.rand(3)
    torch.save({'meta': {'epoch': 3}, 'state_dict': given}, tmp_path / 'plain.pth')
    out = ''
    for source, target in (('plain', 'lesa'), ('lesa', 'again')):
        paths = (tmp_path / f'{name}.pth' for name in (source, target))
        out += run('tools/convert_checkpoint.py', *paths, '--config', config)
    assert out.count('8 operators (layer3.1 to layer4.2) are made of convolutions') == 1
    once, again = (read_checkpoint(tmp_path / f'{name}.pth') for name in ('lesa', 'again'))
    assert 'LESA_ResNet' in once['meta']['cfg'] and once['meta']['epoch'] == 3
    state = once['state_dict']
    assert all(torch.equal(state[key], again['state_dict'][key]) for key in state)
    assert torch.equal(state.pop('bbox_head.weight'), given['bbox_head.weight'])
    backbone = LESA_ResNet(**arguments)
    backbone.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items()})


def test_convert_checkpoint_from_resnet_fits_to_images(run, tmp_path):
    arguments = dict(depth=50, base_channels=16, input_size=(64, 64))
    config = tmp_path / 'config.py'
    backbone = f"backbone=dict(type='LESA_ResNet', **{arguments})"
    config.write_text(
        f"model = dict({backbone}, data_preprocessor=dict(type='DetDataPreprocessor', "
        'mean=[120] * 3, std=[60] * 3, bgr_to_rgb=True))\n',
        encoding='utf-8',
    )
    torch.manual_seed(0)
    plain = LESA_ResNet(operator=None, **arguments)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    generator = np.random.default_rng(0)
    for index in range(4):
        noise = generator.integers(0, 256, (70, 80, 3), dtype=np.uint8)
        mmcv.imwrite(noise, str(tmp_path / 'images' / f'{index}.png'))
    image = torch.randn(1, 3, 64, 64)
    lost = []
    for options in ((), ('--images', tmp_path / 'images')):
        paths = (tmp_path / 'plain.pth', tmp_path / 'lesa.pth')
        run('tools/convert_checkpoint.py', *paths, '--config', config, *options)
        ours = LESA_ResNet(**arguments)
        ours.load_state_dict(read_checkpoint(tmp_path / 'lesa.pth')['state_dict'])
        with torch.no_grad():
            outs = (model.eval()(image)[2] for model in (ours, plain))
            lost.append(float(torch.dist(*outs)))
    assert lost[1] < lost[0]
