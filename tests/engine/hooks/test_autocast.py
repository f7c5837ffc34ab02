from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lesa_mmdet import BackboneAutocastHook, LESA_ResNet


@pytest.fixture(params=['DCN', 'DCNv2'])
def runner(request):
    """A runner of a model with a small, partly deformable backbone, as if pre-trained."""
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = LESA_ResNet(
        depth=50,
        base_channels=8,
        input_size=(96, 96),
        norm_eval=True,
        dcn=dict(type=request.param, deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
    model.backbone.init_weights()
    for name, parameter in model.backbone.named_parameters():
        if 'conv_offset' in name:
            nn.init.zeros_(parameter)
        if name.endswith('bn3.weight'):
            nn.init.constant_(parameter, 0.2)
    model.backbone.train()
    return SimpleNamespace(model=model)


@pytest.fixture
def image():
    return torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def distance(x, expected):
    return ((x - expected).norm() / expected.norm()).item()


def record_dtypes(modules):
    """Dtypes of the outputs of modules, by name, once they ran."""
    dtypes = {}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: dtypes.update({name: output.dtype})
        )
    return dtypes


def test_backbone_computes_in_bfloat16_and_returns_float32(runner, image):
    hook, backbone = BackboneAutocastHook(), runner.model.backbone
    exact = backbone(image)
    hook.before_run(runner)
    dtypes = record_dtypes(
        {
            'convolution': backbone.layer1[0].conv2,
            'deformable': backbone.layer2[1].conv2,
            'offset': backbone.layer2[1].conv2.conv_offset,
            'local': backbone.layer4[1].conv2.local.conv,
            'context': backbone.layer4[1].conv2.context,
        }
    )
    maps = backbone(image)
    assert dtypes == {
        'convolution': torch.bfloat16,
        'deformable': torch.float32,
        'offset': torch.float32,
        'local': torch.float32,
        'context': torch.bfloat16,
    }
    assert not torch.is_autocast_enabled('cpu')
    for x, expected in zip(maps, exact, strict=True):
        assert x.dtype == torch.float32
        assert 0 < distance(x, expected) < 0.02  # bfloat16 rounds to one in 256

    hook.after_run(runner)
    backbone(image)
    assert set(dtypes.values()) == {torch.float32}


def test_gradients_are_float32_and_those_of_gradient_checkpointing(runner, image):
    BackboneAutocastHook().before_run(runner)
    backbone = runner.model.backbone
    gradients = []
    for with_cp in (False, True):
        for stage in range(4):
            for block in getattr(backbone, f'layer{stage + 1}'):
                block.with_cp = with_cp
        backbone.zero_grad()
        sum(x.square().mean() for x in backbone(image.requires_grad_())).backward()
        gradients.append({name: p.grad.clone() for name, p in backbone.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()
        if 'similarity_norm.bias' not in name:  # zero but for rounding
            assert distance(gradients[1][name], gradient) < 0.03, name


def test_a_failure_inside_leaves_no_autocast(runner):
    BackboneAutocastHook().before_run(runner)
    with pytest.raises(RuntimeError, match='channels'):
        runner.model.backbone(torch.zeros(1, 5, 96, 96))
    assert not torch.is_autocast_enabled('cpu')


def test_a_module_that_is_called_again_inside_itself():
    class Nested(nn.Module):
        def forward(self, x):
            before = torch.is_autocast_enabled('cpu')
            inner = self(x[1:]) if len(x) > 1 else x
            return inner + before + torch.is_autocast_enabled('cpu')

    model = nn.Module()
    model.backbone = Nested()
    BackboneAutocastHook().before_run(SimpleNamespace(model=model))
    assert model.backbone(torch.zeros(2)) == 4  # on, before and after the inner call
    assert not torch.is_autocast_enabled('cpu')


def test_model_in_a_wrapper(runner, image):
    backbone = runner.model.backbone
    BackboneAutocastHook().before_run(SimpleNamespace(model=nn.DataParallel(runner.model)))
    dtypes = record_dtypes({'convolution': backbone.layer1[0].conv2})
    backbone(image)
    assert dtypes == {'convolution': torch.bfloat16}
