"""ELSA-Swin's classifiers: the recipe, the authors' files, and a step of training."""

import math

import pytest
import torch
from mmengine.runner import Runner, load_checkpoint

from lesa_mmdet import ELSA_Swin

from helpers.classifiers import SWINS, load, options
from helpers.configs import redumped
from helpers.golden import assert_close_to_largest, golden_cases
from helpers.training import replay_schedule, step_by_hand

TINY = 'elsa-swin-tiny_8xb128_in1k'
EPOCH = 10  # iterations, here
every_config = pytest.mark.parametrize('name', SWINS)


def test_every_released_classifier_is_a_config():
    assert SWINS == [f'elsa-swin-{kind}_8xb128_in1k' for kind in ('base', 'small', 'tiny')]


@pytest.mark.parametrize(
    'kind, depth, heads, width, rate',
    [('tiny', 6, 3, 4, 0.1), ('small', 18, 3, 8, 0.3), ('base', 18, 4, 8, 0.5)],
)
def test_recipe_is_the_released_one(kind, depth, heads, width, rate):
    cfg = load(f'elsa-swin-{kind}_8xb128_in1k')
    backbone = dict(cfg.model.backbone)
    assert backbone.pop('type') == 'ELSA_Swin' and not backbone['always_shift']
    assert backbone.pop('drop_path_rate') == rate
    with torch.device('cpu'):
        operators = ELSA_Swin(**backbone).stages[2].blocks
    assert len(operators) == depth
    assert operators[0].attn.operator.num_heads == 4 * heads
    assert operators[0].attn.operator.surroundings.weight.shape[1] == width
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=8 * 128)
    optimizer = {key: x for key, x in cfg.optim_wrapper.optimizer.items() if key != '_scope_'}
    assert optimizer == dict(type='AdamW', lr=0.001, weight_decay=0.05)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
    averaged = [hook.momentum for hook in cfg.get('custom_hooks', ()) if hook.type == 'EMAHook']
    assert averaged == ([pytest.approx(1 - 0.99992)] if kind == 'base' else [])


def test_schedule_is_the_released_one():
    rates = replay_schedule(load(TINY), EPOCH).flatten()
    assert len(rates) == 310 * EPOCH
    assert rates[0] == pytest.approx(1e-6, rel=1e-3)
    warm_up, cosine = 20 * EPOCH, 280 * EPOCH
    expected = torch.linspace(1e-6, 1e-3, warm_up)
    torch.testing.assert_close(rates[:warm_up], expected, rtol=1e-4, atol=1e-8)
    expected = 1e-5 + (1e-3 - 1e-5) * (1 + torch.cos(math.pi * torch.arange(cosine) / cosine)) / 2
    torch.testing.assert_close(rates[warm_up : warm_up + cosine], expected, rtol=1e-3, atol=1e-7)
    assert rates[-10 * EPOCH :].tolist() == pytest.approx([1e-5] * 10 * EPOCH, rel=1e-2)


@every_config
def test_rebuilds_from_its_own_dump(name, tmp_path):
    cfg = load(name)
    assert redumped(cfg, tmp_path).to_dict() == cfg.to_dict()


@pytest.mark.parametrize('nested', ['state_dict', 'state_dict_ema', 'model'])
@pytest.mark.parametrize('case', golden_cases('elsa_classifier'))
def test_golden_file_is_a_checkpoint_of_the_classifier(case, nested, tmp_path):
    """The authors' ImageNet file, as it is."""
    from mmpretrain.registry import MODELS

    path = str(tmp_path / 'official.pth')
    checkpoint = {'state_dict': {}, 'arch': 'elsa_swin_tiny', 'epoch': 309}
    if nested == 'model':
        del checkpoint['state_dict']
    torch.save({**checkpoint, nested: case.state_dict()}, path)
    cfg = load(TINY)
    cfg.model.backbone.input_size = case.info['input_shape'][-2:]
    cfg.model.head.num_classes = case['logits'].shape[1]
    classifier = MODELS.build(cfg.model).eval()
    assert sum(p.numel() for p in classifier.parameters()) == case.info['num_parameters']
    load_checkpoint(classifier, path, strict=True)
    with torch.no_grad():
        (pooled,) = classifier.extract_feat(case.image())
        logits = classifier.head((pooled,))
    assert_close_to_largest(pooled, case['pooled'], 1e-5, 'pooled')
    assert_close_to_largest(logits, case['logits'], 1e-5, 'logits')


def test_trains_a_step_and_evaluates(image_folder, tmp_path):
    torch.manual_seed(0)
    cfg = load('elsa-swin-base_8xb128_in1k')
    changes = {
        key: value
        for key, value in options(image_folder).items()
        if 'base_channels' not in key and 'pipeline' not in key
    }
    cfg.merge_from_dict({**changes, 'model.head.in_channels': 192})
    # Without drop path, which by chance leaves a block without a gradient.
    cfg.model.backbone.update(
        embed_dims=24, depths=(1, 1, 2, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.0
    )
    for loader in ('train_dataloader', 'val_dataloader'):
        for step in cfg[loader].dataset.pipeline:
            if step.type == 'ResizeEdge':
                step.scale = 72
            if step.type == 'CenterCrop':
                step.crop_size = 64
            for (resize,) in step.get('transforms', ()):
                resize.scale = 64
    cfg.data_preprocessor.num_classes = cfg.model.head.num_classes
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    step_by_hand(runner.model, batch, cfg.optim_wrapper.optimizer)
    assert 0 <= runner.val()['accuracy/top1'] <= 100
