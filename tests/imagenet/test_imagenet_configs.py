"""Every classification config: it says what its name says, has the paper's recipe, and trains."""

import copy
import math
import re

import pytest
import torch
from mmengine.runner import Runner

from helpers.classifiers import NAMES, load, options
from helpers.configs import matched, redumped
from helpers.golden import golden_cases
from helpers.training import replay_schedule, start_residuals, step_by_hand

every_config = pytest.mark.parametrize('name', NAMES)

# The rows of the paper's Tables 2 and 6, and what the detectors start from.
EXPECTED = [
    *('resnet50', 'sa-resnet50', 'aa-resnet50', 'static-lesa-resnet50', 'lesa-resnet50'),
    *('wrn50', 'sa-wrn50', 'lesa-wrn50'),
    *('sa-resnet50-decomposed', 'lesa-resnet50-decomposed'),
    *('sa-wrn50-decomposed', 'lesa-wrn50-decomposed'),
]
NAME = re.compile(
    r'(?P<operator>static-lesa-|lesa-|sa-|aa-|)(?P<backbone>resnet50|wrn50)'
    r'(?P<position>-decomposed|)_4xb32_in1k'
)
OPERATORS = {
    '': None,
    'aa-': dict(type='AugmentedAttention'),
    'sa-': dict(type='SelfAttention'),
    'static-lesa-': dict(type='LESA', fusion='static'),
    'lesa-': dict(type='LESA'),
}
EPOCH = 10  # iterations, here


def test_every_row_of_the_papers_tables_is_a_config():
    assert sorted(f'{name}_4xb32_in1k' for name in EXPECTED) == sorted(NAMES)


@every_config
def test_name_says_what_it_is(name):
    named, cfg = matched(NAME, name), load(name)
    backbone = cfg.model.backbone
    assert backbone.type == {'resnet50': 'LESA_ResNet', 'wrn50': 'LESA_WRN'}[named['backbone']]
    operator = copy.copy(OPERATORS[named['operator']])
    if named['operator'] not in ('', 'aa-'):
        operator['position'] = 'decomposed' if named['position'] else 'flattened'
    assert backbone.operator == operator
    assert backbone.depth == 50 and backbone.strides == (1, 2, 2, 1)
    assert cfg.model.head.num_classes == 1000 and cfg.model.head.in_channels == 2048
    assert cfg.default_scope == 'mmpretrain'


@every_config
def test_recipe_is_the_papers(name):
    cfg = load(name)
    optimizer = without_scope(cfg.optim_wrapper.optimizer)
    assert optimizer == dict(type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=8e-5)
    assert cfg.train_dataloader.batch_size == 32
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=4 * 32)
    assert steps(cfg.train_dataloader) == [
        dict(type='RandomResizedCrop', scale=224),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    ]
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert steps(loader) == [
            dict(type='ResizeEdge', scale=256, edge='short'),
            dict(type='CenterCrop', crop_size=224),
        ]
    assert cfg.model.backbone.input_size == (224, 224)


def steps(loader):
    """What happens to an image after it is loaded and before it is packed."""
    return [without_scope(step) for step in loader.dataset.pipeline[1:-1]]


def without_scope(cfg):
    return {key: value for key, value in cfg.items() if key != '_scope_'}


@every_config
def test_schedule_is_the_papers(name):
    """Five epochs of linear warm-up, then 90 of a cosine, each iteration with its own rate."""
    rates = replay_schedule(load(name), EPOCH).flatten()
    warm_up, rest = 5 * EPOCH, 90 * EPOCH
    assert len(rates) == warm_up + rest
    expected = torch.empty(warm_up + rest)
    expected[:warm_up] = 0.05 * torch.linspace(0.001, 1, warm_up)
    expected[warm_up:] = 0.05 * (1 + torch.cos(math.pi * torch.arange(rest) / rest)) / 2
    torch.testing.assert_close(rates, expected, rtol=1e-4, atol=1e-8)


@every_config
def test_rebuilds_from_its_own_dump(name, tmp_path):
    cfg = load(name)
    dumped = redumped(cfg, tmp_path)
    assert dumped.to_dict() == cfg.to_dict()
    assert sum(1 for _ in build(dumped).parameters()) > 100


@every_config
def test_trains_a_step_and_evaluates(name, image_folder, tmp_path):
    torch.manual_seed(0)
    cfg = load(name)
    cfg.merge_from_dict(options(image_folder))
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    runner = Runner.from_cfg(cfg)
    assert runner.model.data_preprocessor.to_rgb
    runner.model.init_weights()
    backbone = runner.model.backbone
    ends = [p for key, p in backbone.named_parameters() if key.endswith('bn3.weight')]
    assert len(ends) == 16 and not any(p.any() for p in ends)  # residual branches start from zero
    backbone.train()
    assert all(module.training for module in backbone.modules())  # none is frozen
    start_residuals(backbone)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    step_by_hand(runner.model, batch, cfg.optim_wrapper.optimizer)
    assert 0 <= runner.val()['accuracy/top1'] <= 100


class TestParameters:
    """With the classifier's layer: exact, and as the paper rounds them."""

    HEADS, PLACES = 8, 14 * 14
    CONVOLUTION = {'resnet50': 25_557_032, 'wrn50': 68_883_240}  # torchvision's

    def self_attention(self, width, position):
        """Context term and the norm behind it, and how many of those the position tables have."""
        key_dim, value_dim = width // self.HEADS // 2, width // self.HEADS
        tables, terms, outputs = {
            'flattened': ((2 * key_dim + value_dim) * (2 * self.PLACES - 1), 3, 2),
            'decomposed': (2 * key_dim * (2 * 14 - 1), 2, 1),
        }[position]
        qkv = 2 * width * width + 2 * (2 * width)
        return qkv + 2 * terms * self.HEADS + 2 * outputs * width + tables + 2 * width, tables

    def static_lesa(self, width, position):
        attention, tables = self.self_attention(width, position)
        local = 9 * width * width // self.HEADS + width * width + 2 * width
        return attention + local, tables

    def lesa(self, width, position):
        static, tables = self.static_lesa(width, position)
        fusion = 2 * width * width + 2 * width + width * width + 2 * width
        return static - 2 * width + fusion, tables

    def expected(self, operator, backbone, position):
        """Parameters of a whole classifier, and those of its tables."""
        wide = 2 if backbone == 'wrn50' else 1
        widths = [256 * wide] * 5 + [512 * wide] * 3
        counts = [operator(width, position) for width in widths]
        replaced = sum(9 * width * width + 2 * width for width in widths)
        tables = sum(count[1] for count in counts)
        return self.CONVOLUTION[backbone] - replaced + sum(count[0] for count in counts), tables

    @pytest.mark.parametrize(
        'name, operator, of_the_paper, counts_tables',
        [
            ('sa-resnet50', 'self_attention', 18.06, True),
            ('static-lesa-resnet50', 'static_lesa', 20.43, True),
            ('lesa-resnet50', 'lesa', 23.78, True),
            ('sa-wrn50', 'self_attention', 37.7, False),
            ('lesa-wrn50', 'lesa', 60.6, False),
            ('sa-resnet50-decomposed', 'self_attention', None, True),
            ('lesa-resnet50-decomposed', 'lesa', None, True),
            ('sa-wrn50-decomposed', 'self_attention', 37.7, False),
            ('lesa-wrn50-decomposed', 'lesa', 60.6, False),
        ],
    )
    def test_operators(self, name, operator, of_the_paper, counts_tables):
        _, _, backbone = name.removesuffix('-decomposed').rpartition('-')
        position = 'decomposed' if name.endswith('-decomposed') else 'flattened'
        total, tables = self.expected(getattr(self, operator), backbone, position)
        assert count(name) == total
        assert count(name, ('.relative', '.context.height', '.context.width')) == tables
        if of_the_paper:
            digits = len(str(of_the_paper).partition('.')[2])
            counted = total if counts_tables else total - tables
            assert round(counted / 1e6, digits) == of_the_paper

    @pytest.mark.parametrize('name, of_the_paper', [('resnet50', 25.56), ('wrn50', 68.9)])
    def test_convolution(self, name, of_the_paper):
        assert count(name) == self.CONVOLUTION[name]
        digits = len(str(of_the_paper).partition('.')[2])
        assert round(self.CONVOLUTION[name] / 1e6, digits) == of_the_paper

    def attention_augmentation(self, width, position):
        key_dim, value_dim = round(0.2 * width / self.HEADS), round(0.1 * width / self.HEADS)
        channels, tables = self.HEADS * value_dim, 2 * key_dim * (2 * 14 - 1)
        qkv = width * (2 * self.HEADS * key_dim + channels)
        convolution = 9 * width * (width - channels)
        return convolution + qkv + tables + channels * channels + 2 * width, tables

    def test_attention_augmentation(self):
        total, _ = self.expected(self.attention_augmentation, 'resnet50', None)
        assert count('aa-resnet50') == total
        assert total / 1e6 == pytest.approx(25.15, abs=0.1)  # the paper does not say how it rounds

    @pytest.mark.parametrize('case', golden_cases('classifier'))
    def test_golden(self, case):
        assert count('lesa-resnet50') == case.info['num_parameters'] == 23_777_512


def build(cfg):
    """The model without values."""
    from mmpretrain.registry import MODELS

    with torch.device('meta'):
        return MODELS.build(cfg.model)


def count(name, endings=''):
    model = build(load(f'{name}_4xb32_in1k'))
    return sum(p.numel() for key, p in model.named_parameters() if key.endswith(endings))
