"""Models of configs and checkpoints, and the operators in them."""

import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from lesa_mmdet import LESA, LESA_ResNet
from lesa_mmdet.analysis.operators import get_operator, operators
from lesa_mmdet.apis.load import load_model
from lesa_mmdet.checkpoints.files import read_checkpoint

from helpers.paths import ROOT

CLASSIFIER = ROOT / 'configs/imagenet/lesa-resnet50_4xb32_in1k.py'
LOAD_WITHOUT_MMPRETRAIN = """
import sys
from lesa_mmdet.apis.load import load_model

for config in sys.argv[1:]:
    try:
        load_model(config, 'gone.pth')
    except ValueError as error:
        print(error)
"""
NAMES = [f'layer3.{i}' for i in range(1, 6)] + [f'layer4.{i}' for i in range(3)]


def test_detector(detector, checkpoint, data_options):
    model = load_model(detector, checkpoint, cfg_options=data_options)
    assert not model.training
    assert model.cfg.test_evaluator.ann_file == data_options['test_evaluator.ann_file']
    weights = read_checkpoint(checkpoint)['state_dict']
    torch.testing.assert_close(model.state_dict(), weights)


def test_trained_model_needs_no_backbone_it_started_from(detector, checkpoint, data_options):
    cfg = Config.fromfile(detector)
    init_cfg = dict(type='Pretrained', checkpoint='gone.pth')
    cfg.merge_from_dict(data_options)
    cfg.model.backbone.init_cfg = init_cfg
    assert operators(load_model(cfg, checkpoint))
    assert cfg.model.backbone.init_cfg == init_cfg  # the caller's config stays as it was


def test_classifier(mmpretrain, tmp_path):
    from mmpretrain.registry import MODELS

    options = {'model.backbone.base_channels': 16, 'model.head.in_channels': 512}
    cfg = Config.fromfile(CLASSIFIER)
    cfg.merge_from_dict(options)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        weights = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'classifier.pth')
    model = load_model(CLASSIFIER, tmp_path / 'classifier.pth', cfg_options=options)
    assert not model.training and model.cfg.model.head.in_channels == 512
    torch.testing.assert_close(model.state_dict(), weights)
    assert list(operators(model)) == NAMES


@pytest.mark.parametrize('operator', [dict(type='SelfAttention'), None])
def test_checkpoint_of_another_operator(detector, checkpoint, data_options, operator):
    options = {**data_options, 'model.backbone.operator': operator}
    with pytest.raises(ValueError) as error:
        load_model(detector, checkpoint, cfg_options=options)
    message = str(error.value)
    assert message.startswith(f'{checkpoint} does not go into the model of {detector}: ')
    assert 'unexpected (layer3.1.conv2.' in message and '\n' not in message


def test_missing_files(detector, checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match='config .*gone.py does not exist'):
        load_model(tmp_path / 'gone.py', checkpoint)
    with pytest.raises(FileNotFoundError, match='checkpoint: .*gone.pth does not exist; train one'):
        load_model(detector, tmp_path / 'gone.pth')


def test_missing_mmpretrain(run, tmp_path, without_mmpretrain):
    dumped = tmp_path / 'dumped.py'  # as training leaves it, without a base
    dumped.write_text(
        "custom_imports = dict(imports=['lesa_mmdet', 'lesa_mmdet.models.classifiers'])",
        encoding='utf-8',
    )
    out = run(
        sys.executable, '-c', LOAD_WITHOUT_MMPRETRAIN, CLASSIFIER, dumped, **without_mmpretrain
    )
    for config in (CLASSIFIER, dumped):
        assert f'{config}: it needs mmpretrain, which is not' in out
    assert out.count("pip install 'mmpretrain>=1.2,<2' torchvision\n") == 2


def test_operators(build_backbone):
    backbone = build_backbone(type='LESA')
    found = operators(backbone)
    assert list(found) == NAMES
    assert all(isinstance(operator, LESA) for operator in found.values())
    assert get_operator(backbone, 'layer4.0') is backbone.layer4[0].conv2
    with pytest.raises(ValueError, match="'layer3.0' has no operator; available: layer3.1, .*4.2$"):
        get_operator(backbone, 'layer3.0')


def test_convolution_has_no_operator():
    with pytest.raises(ValueError, match='LESA_ResNet has no operator, only convolution: take'):
        operators(LESA_ResNet(50, operator=None, base_channels=4))
