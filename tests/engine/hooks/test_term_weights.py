"""What the hook logs in a short training."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from lesa_mmdet import TermWeightsHook
from lesa_mmdet.analysis.weights import TermWeights, with_mean
from lesa_mmdet.visualization.curves import read_scalars


class Model(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs, mode):
        features = self.backbone(inputs)[-1].mean(dim=(1, 2, 3))
        return dict(loss=features.square().mean()) if mode == 'loss' else list(features)


class Metric(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(mean=float(sum(results)))


@pytest.fixture
def batches():
    """Validation images: two batches of two."""
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return images.split(2)


def loader(images):
    return dict(
        dataset=[dict(inputs=image) for image in images],
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=2,
        collate_fn=dict(type='default_collate'),
    )


@pytest.fixture
def train(tmp_path, batches):
    """Trains for two epochs and validates after each; what was logged, and the log."""

    def train(backbone, validate=True, **hook):
        validation = dict(
            val_dataloader=loader(torch.cat(batches)),
            val_cfg=dict(),
            val_evaluator=Evaluator(Metric()),
        )
        runner = Runner(
            model=Model(backbone),
            work_dir=str(tmp_path),
            default_scope='mmdet',
            train_dataloader=loader(torch.randn(2, 3, 64, 64)),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[dict(type='TermWeightsHook', **hook)],
            experiment_name=tmp_path.name,
            **(validation if validate else {}),
        )
        runner.train()
        log = next(tmp_path.glob('*/*.log')).read_text(encoding='utf-8')
        return [entry for entry in read_scalars(tmp_path) if 'toy/mean' in entry], log

    return train


def measured(backbone, batches):
    backbone.eval()
    with torch.no_grad(), TermWeights(backbone) as weights:
        for batch in batches:
            backbone(batch)
    return weights.unary()


@pytest.mark.parametrize('kind', ['LESA', 'SelfAttention'])
@pytest.mark.parametrize('num_batches', [1, 2, 3])
def test_mean_is_logged_with_every_validation(build_backbone, train, batches, kind, num_batches):
    backbone = build_backbone(type=kind)
    first, last = train(backbone, num_batches=num_batches)[0]
    shares = with_mean(measured(backbone, batches[:num_batches]))['mean']
    logged = {key: value for key, value in last.items() if key.startswith('term_weights/')}
    assert logged == pytest.approx({f'term_weights/{term}': shares[term] for term in shares})
    assert first['term_weights/unary'] != last['term_weights/unary']
    assert (first['step'], last['step']) == (1, 2)


def test_layers_are_logged_on_demand(build_backbone, train, batches):
    backbone = build_backbone(type='LESA')
    entries, log = train(backbone, per_layer=True)
    for name, share in measured(backbone, batches[:1]).items():
        assert entries[-1][f'term_weights/{name}'] == pytest.approx(share)
    assert 'term_weights/unary: ' in log and 'term_weights/layer4.2: ' in log


def test_no_validation_is_said_to_log_nothing(build_backbone, train):
    assert 'TermWeightsHook logs nothing: ' in train(build_backbone(type='LESA'), validate=False)[1]


def test_model_in_a_wrapper(build_backbone, batches):
    wrapped = nn.DataParallel(Model(build_backbone(type='LESA')))
    assert is_model_wrapper(wrapped)
    logged = {}
    hub = SimpleNamespace(update_scalar=logged.__setitem__)
    runner = SimpleNamespace(model=wrapped, message_hub=hub)
    hook = TermWeightsHook()
    hook.before_run(runner)
    hook.before_val_iter(runner, 0)
    with torch.no_grad():
        wrapped.module(batches[0], mode='predict')
    hook.after_val_iter(runner, 0)
    hook.after_val_epoch(runner)
    unary = with_mean(measured(wrapped.module.backbone, batches[:1]))['mean']['unary']
    assert logged['val/term_weights/unary'] == pytest.approx(unary)


def test_configs_of_classifiers_find_it(mmpretrain):
    from mmpretrain.registry import HOOKS

    assert HOOKS.get('mmdet.TermWeightsHook') is TermWeightsHook


def test_bad_input(build_backbone, train):
    with pytest.raises(ValueError, match='num_batches has to be at least 1, got 0'):
        TermWeightsHook(num_batches=0)
    convolution = build_backbone(type='LESA')
    for layer in (convolution.layer3, convolution.layer4):
        for block in layer:
            block.conv2 = nn.Conv2d(block.planes, block.planes, 1)
    with pytest.raises(ValueError, match='has no operator, only convolution'):
        train(convolution)
