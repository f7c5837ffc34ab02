"""Tiny backbones, and the demo's detector with images."""

import importlib.util

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from lesa_mmdet.datasets.shapes import generate

from helpers.backbones import build_backbone, mmdet_scope  # noqa: F401
from helpers.paths import ROOT


@pytest.fixture(scope='session')
def detector():
    """Config of the demo's detector."""
    return ROOT / 'configs/demo/mask-rcnn_lesa-r50-narrow_fpn_1xb4-10e_shapes-160.py'


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """Root of a few of the demo's images."""
    return generate(tmp_path_factory.mktemp('shapes'), num_train=1, num_val=6)


@pytest.fixture
def data_options(shapes):
    """Options that put these images into the demo's config."""
    options = {'test_evaluator.ann_file': f'{shapes}/annotations/val.json'}
    options['test_dataloader.dataset.data_root'] = f'{shapes}/'
    return options


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory, detector):
    """Checkpoint of the demo's detector, untrained."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(detector).model)
    path = tmp_path_factory.mktemp('checkpoint') / 'untrained.pth'
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='session')
def tool():
    """tools/analysis/term_weights.py as a module."""
    path = ROOT / 'tools' / 'analysis' / 'term_weights.py'
    spec = importlib.util.spec_from_file_location('term_weights', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
