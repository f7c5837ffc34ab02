"""An operator that is defined here alone is built, drawn, weighed and counted by what it says."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from lesa_mmdet import LESA_ResNet
from lesa_mmdet.analysis import complexity, maps
from lesa_mmdet.analysis.operators import mixers, operators
from lesa_mmdet.analysis.weights import TermWeights
from lesa_mmdet.models.layers import Attended, Operator, Probe

from helpers.paths import ROOT


class Blend(Operator):
    """A position keeps 3/4 of its surroundings and takes 1/4 of the mean over its map."""

    reads = ('feat_size', 'dilation')
    is_normed = True

    def __init__(self, in_channels, out_channels, *, feat_size, dilation, scale=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.gate = nn.Sigmoid()
        self.table = nn.Parameter(torch.full(feat_size, 1.0))
        self.scale = scale

    @property
    def position_tables(self):
        return [self.table]

    @property
    def local_conv(self):
        return self.conv

    @property
    def omega(self):
        return Probe(self.gate, lambda inputs, out: out)

    @property
    def unary_share(self):
        return Probe(self.gate, lambda inputs, out: torch.full((len(out), 1), 0.75))

    def look(self, x):
        positions = x[0, 0].numel()
        return lambda row, col: Attended(torch.full((2, *x.shape[-2:]), 1 / positions))

    def forward(self, x):
        y = self.scale * self.conv(x)
        return 0.75 * y + self.gate(y) * y.mean((2, 3), keepdim=True)


class Shuffle(Operator):
    """One that says nothing of itself."""

    def __init__(self, in_channels, out_channels):
        super().__init__()

    def forward(self, x):
        return x.roll((1, 1), (-2, -1))


def build(kind, **own):
    return LESA_ResNet(
        50,
        operator=dict(type=kind, **own),
        base_channels=4,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        input_size=(64, 96),
    ).eval()


def record(backbone, monkeypatch):
    """Of a random image that the model sees as it is."""
    view = maps.View.from_metainfo(dict(ori_shape=(64, 96), img_shape=(64, 96)), (64, 96))
    data = dict(inputs=torch.randn(1, 3, 64, 96))
    monkeypatch.setattr(maps, '_preprocess', lambda *_: (view, data))
    return maps.Recording(SimpleNamespace(backbone=backbone), 'image.png', mixers(backbone))


def test_is_built_from_what_it_reads_and_normed_as_it_says():
    block = build(Blend, scale=3).layer4[1]
    assert block.conv2.conv.dilation == (2, 2) and block.conv2.scale == 3
    assert block.conv2.table.shape == (4, 6)
    assert isinstance(block.bn2, nn.Identity)
    assert isinstance(build(Shuffle).layer4[1].bn2, nn.BatchNorm2d)


def test_is_found_by_its_block_and_looked_at(monkeypatch):
    backbone = build(Blend)
    assert list(operators(backbone))[::7] == ['layer3.1', 'layer4.2']
    looked = record(backbone, monkeypatch).at((40, 20), 'layer4.1')
    assert looked.weights.shape == (2, 4, 6) and np.allclose(looked.weights, 1 / 24)
    assert looked.fixed is None
    row, col = looked.position
    assert {(x - col - 0.5, y - row - 0.5) for x, y in looked.field} == {
        (x, y) for x in (-2, 0, 2) for y in (-2, 0, 2)
    }
    assert looked.omega.shape == (4, 6) and (0 < looked.omega).all() and (looked.omega < 1).all()


def test_one_that_says_nothing_has_no_maps_but_a_position(monkeypatch):
    looked = record(build(Shuffle), monkeypatch).at((40, 20), 'layer4.1')
    assert looked.shape == (4, 6)
    assert looked.weights is looked.fixed is looked.field is looked.omega is None


def test_terms_are_weighed_if_it_says_what_they_weigh():
    backbone = build(Blend)
    with TermWeights(backbone) as weights:
        backbone(torch.randn(2, 3, 64, 96))
    assert weights.unary() == dict.fromkeys(operators(backbone), 0.75)
    with pytest.raises(ValueError, match='layer3.1 is Shuffle, but the terms weigh something only'):
        TermWeights(build(Shuffle))


@pytest.mark.parametrize(('kind', 'tables'), [(Blend, 8 * 4 * 6), (Shuffle, 0)])
def test_is_counted_and_named_in_the_table_of_models(kind, tables):
    backbone = ConfigDict(
        type='LESA_ResNet',
        depth=50,
        operator=dict(type=kind),
        base_channels=4,
        strides=(1, 2, 2, 1),
        input_size=(64, 96),
    )
    model = ConfigDict(backbone=backbone, head=dict(in_channels=128, num_classes=2))
    counted = complexity.count_classifier(model)
    assert counted['table_parameters'] == tables
    assert counted['flops'] > 0
    spec = importlib.util.spec_from_file_location('model_table', ROOT / 'tools/model_table.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.name_operator(backbone) == kind.__name__


def test_two_operators_of_a_block_are_both_found():
    backbone = build(Shuffle)
    backbone.layer4[1].conv3 = nn.Sequential(Shuffle(1, 1), backbone.layer4[1].conv3)
    names = list(operators(backbone))
    assert names[-3:] == ['layer4.1', 'layer4.1.conv3.0', 'layer4.2']
