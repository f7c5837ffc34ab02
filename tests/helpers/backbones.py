"""Tiny backbones, as fixtures."""

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from lesa_mmdet import LESA_ResNet


@pytest.fixture(autouse=True)
def mmdet_scope():
    """Registries look into mmdet, as in a training."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def build_backbone():
    """Builds a ResNet of 4 x 4 maps whose norms have statistics and whose layers differ."""

    def build(**operator):
        torch.manual_seed(0)
        backbone = LESA_ResNet(
            50,
            operator=dict(num_heads=2, **operator),
            base_channels=4,
            strides=(1, 2, 2, 1),
            input_size=(64, 64),
            norm_eval=False,
        )
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
        for _ in range(5):
            backbone(torch.randn(4, 3, 64, 64))
        backbone.eval()
        return backbone

    return build
