"""The classifier: where it is found, the authors' files, and files of other operators."""

import copy
import sys

import pytest
import torch
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint

import lesa_mmdet

from helpers.classifiers import load, options
from helpers.golden import assert_close_to_largest, golden_cases

LESA = 'lesa-resnet50_4xb32_in1k'


def build(name=LESA, **changes):
    """A small classifier of a config."""
    from mmpretrain.registry import MODELS

    cfg = load(name)
    cfg.merge_from_dict({**options(root=''), **changes})
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', ['LESA_ResNet', 'LESA_WRN'])
def test_backbones_are_found_by_mmpretrain_and_mmdet(name):
    from mmdet.registry import MODELS as MMDET_MODELS
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    kind = getattr(lesa_mmdet, name)
    backbone = dict(depth=50, base_channels=16, input_size=(64, 64))
    for registry in (MMDET_MODELS, MMPRETRAIN_MODELS, ROOT_MODELS):
        for scope in ('mmdet', 'mmpretrain'):
            with DefaultScope.overwrite_default_scope(scope):
                for full_name in (name, f'mmdet.{name}'):
                    assert registry.get(full_name) is kind
                    built = registry.build(dict(type=full_name, **copy.deepcopy(backbone)))
                    assert type(built) is kind
                    assert isinstance(built.layer4[0].conv2, lesa_mmdet.LESA)


def test_the_package_needs_no_mmpretrain(run, without_mmpretrain):
    code = """
import lesa_mmdet
from mmdet.registry import MODELS
MODELS.build(dict(type='LESA_ResNet', depth=50, base_channels=16))
try:
    import lesa_mmdet.models.classifiers
except ImportError as error:
    print(error)
"""
    out = run(sys.executable, '-c', code, **without_mmpretrain)
    assert out.splitlines()[-1] == (
        'image classification needs mmpretrain, which is not installed: '
        "pip install 'mmpretrain>=1.2,<2' torchvision"
    )


@pytest.mark.parametrize('by', ['load_from', 'init_cfg'])
@pytest.mark.parametrize('case', golden_cases('classifier'))
def test_golden_file_is_a_checkpoint_of_the_classifier(case, by, tmp_path):
    """The authors' ImageNet file, as it is: DataParallel's prefix, optimizer and epoch."""
    from mmpretrain.registry import MODELS

    net = {f'module.{key}': value for key, value in case.state_dict().items()}
    path = str(tmp_path / 'official.pth')
    torch.save({'net': net, 'optim': {'lr': 0.05}, 'epoch': 94}, path)
    model = load(LESA).model
    if by == 'init_cfg':
        model.init_cfg = dict(type='Pretrained', checkpoint=path)
    classifier = MODELS.build(model).eval()
    if by == 'init_cfg':
        classifier.init_weights()
    else:
        load_checkpoint(classifier, path)  # as a runner does, also in tools/test.py
    with torch.no_grad():
        logits = classifier(case.image())
    assert_close_to_largest(logits, case['logits'], 1e-3, 'logits')


def test_torchvisions_names_load():
    torch.manual_seed(0)
    source, classifier = build('resnet50_4xb32_in1k'), build('resnet50_4xb32_in1k')
    state = source.state_dict()
    renamed = {key.partition('.')[2]: value for key, value in state.items()}
    assert {key for key in renamed if key[:3] == 'fc.'} == {'fc.weight', 'fc.bias'}
    classifier.load_state_dict(renamed)
    loaded = classifier.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_own_state_dict_inside_another_module():
    classifier = build()
    outer = torch.nn.ModuleDict({'model': classifier})
    state = {key: value + 1 for key, value in outer.state_dict().items()}
    outer.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in outer.state_dict().items())


OPERATORS = {
    'resnet50': 'plain convolution',
    'aa-resnet50': 'attention augmentation with decomposed positions',
    'sa-resnet50': 'self-attention with flattened positions',
    'static-lesa-resnet50': 'static LESA with flattened positions',
    'lesa-resnet50': 'LESA with flattened positions',
    'lesa-resnet50-decomposed': 'LESA with decomposed positions',
}


@pytest.mark.parametrize('source', OPERATORS)
@pytest.mark.parametrize('target', ['resnet50', 'sa-resnet50', 'lesa-resnet50', 'aa-resnet50'])
def test_checkpoint_of_another_operator(source, target):
    classifier = build(f'{target}_4xb32_in1k')
    state = build(f'{source}_4xb32_in1k').state_dict()
    if source == target:
        classifier.load_state_dict(state)
        return
    with pytest.raises(ValueError) as error:
        classifier.load_state_dict(state)
    hint = '; pretrained_conv=True of the backbone makes its operators of convolutions'
    assert str(error.value).startswith(
        'the checkpoint does not fit LESA_ResNet: '
        f'it looks like one of {OPERATORS[source]}, not of {OPERATORS[target]}'
        f'{hint if source == "resnet50" else ""}, keys: '
    )


def test_backbone_of_a_classifier_needs_its_prefix(tmp_path):
    classifier = build()
    torch.save({'state_dict': classifier.state_dict()}, tmp_path / 'classifier.pth')
    backbone = type(classifier.backbone)(
        depth=50,
        base_channels=16,
        input_size=(64, 64),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'classifier.pth')),
    )
    with pytest.raises(ValueError, match=r"set prefix='backbone\.' in init_cfg"):
        backbone.init_weights()
