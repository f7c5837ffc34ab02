"""Shares of the terms against those of the dense softmax, and against omega."""

import json
import math
import sys

import mmcv
import numpy as np
import pytest
import torch
from einops import rearrange
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from lesa_mmdet.analysis.operators import operators
from lesa_mmdet.analysis.weights import TermWeights, ablated, with_mean
from lesa_mmdet.apis.load import load_model
from lesa_mmdet.attention import relative_logits
from lesa_mmdet.attention.decomposed.reference import attend_flattened_normalized, attend_normalized

from helpers.paths import ROOT

POSITIONS = ['decomposed', 'flattened']


@pytest.fixture
def images():
    """A pale image and one of strong contrasts."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return images * torch.tensor([0.01, 10]).view(-1, 1, 1, 1)


def dense_weights(context, x):
    """Softmax matrix (B, heads, HW, HW): what the definition of attention makes of unit values."""
    q, k, v = context.project(x)
    unit = torch.eye(q.shape[2]).expand(*q.shape[:2], -1, -1)
    if hasattr(context, 'height'):
        row, col = relative_logits(q, context.height, context.width)
        return attend_normalized(q, k, unit, row, col, context.similarity_norm)
    table = torch.cat((context.relative[: -v.shape[-1]], torch.zeros(q.shape[2], 2 * 16 - 1)))
    return attend_flattened_normalized(q, k, unit, table, context.similarity_norm)[0]


def inputs_of(modules, model, images):
    """What modules get in a run."""
    seen = {}
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs}))
    model(images)
    return seen


@torch.no_grad()
@pytest.mark.parametrize('position', POSITIONS)
def test_attention_weighs_the_diagonal_of_the_dense_softmax(build_backbone, images, position):
    backbone = build_backbone(type='SelfAttention', position=position)
    contexts = {name: operator.context for name, operator in operators(backbone).items()}
    seen = inputs_of(contexts, backbone, images)
    with TermWeights(backbone) as weights:
        backbone(images)
    expected = {
        name: dense_weights(context, *seen[name]).diagonal(dim1=-2, dim2=-1).mean().item()
        for name, context in contexts.items()
    }
    assert weights.unary() == pytest.approx(expected, rel=1e-4)
    assert len(set(expected.values())) == 8 and all(0 < share < 0.5 for share in expected.values())


@torch.no_grad()
@pytest.mark.parametrize('position', POSITIONS)
def test_lesa_weighs_by_omega(build_backbone, images, position):
    backbone = build_backbone(type='LESA', position=position)
    found = operators(backbone)
    seen = inputs_of(found, backbone, images)
    with TermWeights(backbone) as weights:
        backbone(images)
    expected = {}
    for name, operator in found.items():
        x = seen[name][0]
        omega = operator.fusion(operator.local(x), operator.context(x))
        expected[name] = (1 / (1 + omega)).mean().item()
    assert weights.unary() == pytest.approx(expected, rel=1e-5)
    assert len(set(expected.values())) == 8


@torch.no_grad()
def test_static_fusion_weighs_both_terms_alike(build_backbone, images):
    backbone = build_backbone(type='LESA', fusion='static')
    with TermWeights(backbone) as weights:
        backbone(images)
    assert with_mean(weights.unary()) == {
        **{name: dict(unary=0.5, binary=0.5) for name in operators(backbone)},
        'mean': dict(unary=0.5, binary=0.5),
    }


@torch.no_grad()
@pytest.mark.parametrize('kind', ['LESA', 'SelfAttention'])
def test_every_image_counts_alike(build_backbone, images, kind):
    backbone = build_backbone(type=kind)
    larger = torch.randn(1, 3, 96, 128)
    parts = []
    for batch in (images[:1], images[1:], larger):
        with TermWeights(backbone) as weights:
            backbone(batch)
        parts.append(weights.unary())
    with TermWeights(backbone) as weights:
        backbone(images)
        backbone(larger)
    backbone(larger)  # not seen any more
    means = {name: sum(part[name] for part in parts) / 3 for name in parts[0]}
    assert weights.unary() == pytest.approx(means, rel=1e-5)
    assert weights.unary() != pytest.approx(parts[0], rel=1e-3)


def test_mean_over_layers():
    shares = with_mean({'layer3.1': 0.25, 'layer4.0': 0.5})
    assert list(shares) == ['layer3.1', 'layer4.0', 'mean']
    assert shares['mean'] == dict(unary=0.375, binary=0.625)


@torch.no_grad()
def test_watching_changes_nothing(build_backbone, images):
    backbone = build_backbone(type='SelfAttention')
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    expected = backbone(images)
    with TermWeights(backbone):
        assert all(map(torch.equal, backbone(images), expected))
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in backbone.modules())


@torch.no_grad()
@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('kind', ['LESA', 'SelfAttention'])
def test_ablation_leaves_out_the_diagonal(build_backbone, images, kind, position):
    backbone = build_backbone(type=kind, position=position)
    context = backbone.layer3[1].conv2.context
    (x,) = inputs_of({'': context}, backbone, images)['']
    weights, v = dense_weights(context, x), context.project(x)[2]
    weights.diagonal(dim1=-2, dim2=-1).zero_()
    outputs = [weights @ v]
    if position == 'flattened':
        places = torch.arange(16)
        offsets = places[:, None] - places + 15
        embedding = context.relative[-v.shape[-1] :, offsets]
        outputs.append(torch.einsum('bnij,dij->bnid', weights, embedding))
    expected = rearrange(outputs, 't b n (h w) d -> b (n d t) h w', h=4)
    expected = context.output_norm(expected)
    if position == 'flattened':
        expected = expected[:, ::2] + expected[:, 1::2]

    whole = backbone(images)
    with ablated(backbone):
        torch.testing.assert_close(context(x), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(backbone(images)[-1], whole[-1])
    assert all(map(torch.equal, backbone(images), whole))


def test_ablation_ends_with_an_error(build_backbone):
    backbone = build_backbone(type='LESA')
    with pytest.raises(RuntimeError), ablated(backbone):
        assert all(operator.context.ablate_unary for operator in operators(backbone).values())
        raise RuntimeError
    assert not any(operator.context.ablate_unary for operator in operators(backbone).values())


def test_what_cannot_be_measured(build_backbone, images):
    with pytest.raises(ValueError, match='no context term whose diagonal could go'):
        with ablated(nn.Conv2d(1, 1, 1)):
            pass
    backbone = build_backbone(type='LESA')
    with pytest.raises(ValueError, match='layer3.1 is AugmentedAttention, but the terms weigh'):
        TermWeights(build_backbone(type='AugmentedAttention'))
    with pytest.raises(ValueError, match='no image was run'):
        TermWeights(backbone).unary()
    backbone.train()
    with pytest.raises(ValueError, match='layer4.2: in training mode, '):
        with TermWeights(backbone):
            pass


def test_tool_measures_a_detector(detector, checkpoint, data_options, run, tmp_path):
    data = [f'{key}={value}' for key, value in data_options.items()]
    out = run(
        *('tools/analysis/term_weights.py', detector, checkpoint),
        *('--num-images', 3, '--ablate-unary'),
        *('--json', tmp_path / 'weights.json', '--plot', tmp_path / 'weights.png'),
        *('--cfg-options', *data),
    )
    result = json.loads((tmp_path / 'weights.json').read_text(encoding='utf-8'))
    assert result['num_images'] == 3 and 'mean over 3 images' in out
    assert list(result['shares'])[::4] == ['layer3.1', 'layer3.5', 'mean']
    for name, share in result['shares'].items():
        assert share['unary'] + share['binary'] == pytest.approx(1)
        assert 0.5 < share['unary'] < 1
        assert f'{name:12}{share["unary"]:8.1%}{share["binary"]:8.1%}' in out
    whole, without = result['metrics']['whole'], result['metrics']['without_unary']
    assert list(whole) == list(without) and {'coco/bbox_mAP', 'coco/segm_mAP'} < set(whole)
    assert all(map(math.isfinite, [*whole.values(), *without.values()]))
    assert f'coco/bbox_mAP{whole["coco/bbox_mAP"]:21.3f}{without["coco/bbox_mAP"]:16.3f}' in out
    assert (tmp_path / 'weights.png').read_bytes().startswith(b'\x89PNG')


def test_tool_measures_a_classifier(mmpretrain, tool, tmp_path, monkeypatch, capsys):
    from mmpretrain.registry import MODELS

    config = next(ROOT.glob('configs/crops/sa-*.py'))
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        weights = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'untrained.pth')
    images = np.random.default_rng(0).integers(256, size=(2, 12, 2, 24, 24, 3))
    for split, classes in zip(('train', 'val'), images, strict=True):
        for name, of_class in enumerate(classes):
            for i, image in enumerate(of_class):
                mmcv.imwrite(image, str(tmp_path / split / f'{name:02}' / f'{i}.png'))
    arguments = [config, tmp_path / 'untrained.pth', '--num-images', 20, '--ablate-unary']
    arguments += ['--json', tmp_path / 'weights.json', '--cfg-options']
    arguments += [f'test_dataloader.dataset.datasets.{i}.data_root={tmp_path}' for i in range(2)]
    monkeypatch.setattr(sys, 'argv', ['term_weights.py', *map(str, arguments)])
    tool.main()
    result = json.loads((tmp_path / 'weights.json').read_text(encoding='utf-8'))
    assert result['num_images'] == 40  # 20 of each data set
    for share in result['shares'].values():
        assert 0.001 < share['unary'] < 0.5  # of 36 places
    for metrics in result['metrics'].values():
        assert set(metrics) == {'train/accuracy/top1', 'val/accuracy/top1'}
        assert all(value % 5 == 0 for value in metrics.values())  # one of 20 is 5%
    assert 'mean over 40 images' in capsys.readouterr().out


def test_tool_says_what_is_wrong(detector, checkpoint, data_options, tool, monkeypatch):
    data = ['--cfg-options', *(f'{key}={value}' for key, value in data_options.items())]
    for arguments, message in (
        (['gone.py', checkpoint, *data], 'gone.py'),
        ([detector, 'gone.pth', *data], 'gone.pth'),
        ([detector, checkpoint, '--num-images', 0, *data], '--num-images .* at least 1, got 0'),
        ([detector, checkpoint, *data, 'test_evaluator.ann_file=gone.json'], 'gone.json does not'),
        ([detector, checkpoint, *data, 'model.backbone.operator=None'], 'the checkpoint does not'),
    ):
        monkeypatch.setattr(sys, 'argv', ['term_weights.py', *map(str, arguments)])
        with pytest.raises(SystemExit, match=f'^error: .*{message}'):
            tool.main()


def test_metric_is_of_the_images_that_were_run(detector, checkpoint, data_options, tool):
    """Whoever detects everything in some of the images reaches an AP of 1."""
    model = load_model(detector, checkpoint, cfg_options=data_options)
    loader = tool.build_loader(model.cfg, 3)
    ids = [loader.dataset.get_data_info(i)['img_id'] for i in range(3)]
    assert ids == [1, 3, 6]  # evenly spread over six
    evaluator = tool.build_evaluator(model.cfg, loader.dataset)
    (metric,) = evaluator.metrics
    metric.metrics = ['bbox']
    names = loader.dataset.metainfo['classes']
    for image_id in ids:
        truth = metric._coco_api.imgToAnns[image_id]
        boxes = torch.tensor([annotation['bbox'] for annotation in truth])
        boxes[:, 2:] += boxes[:, :2]
        detected = dict(
            bboxes=boxes,
            scores=torch.ones(len(truth)),
            labels=torch.tensor(
                [names.index(metric._coco_api.cats[a['category_id']]['name']) for a in truth]
            ),
        )
        sample = dict(img_id=image_id, ori_shape=(192, 192), pred_instances=detected)
        evaluator.process([sample], {})
    assert evaluator.evaluate(3)['coco/bbox_mAP'] == 1
