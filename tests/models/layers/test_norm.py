import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from lesa_mmdet.models.layers.norm import can_fold, normed_conv


@pytest.fixture
def layers():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return nn.ModuleList((conv, norm)).double()


@pytest.mark.parametrize('training', [True, False])
def test_is_the_norm_of_the_convolution(layers, training):
    layers.train(training)
    expected = copy.deepcopy(layers)
    results = []
    for (conv, norm), run in ((layers, normed_conv), (expected, lambda x, c, n: n(c(x)))):
        x = torch.arange(2 * 6 * 5 * 4.0).double().sin().view(2, 6, 5, 4).requires_grad_()
        out = run(x, conv, norm)
        out.backward(torch.arange(out.numel()).double().cos().view_as(out))
        results.append([out, x.grad, *(p.grad for p in (*conv.parameters(), *norm.parameters()))])
    for actual, wanted in zip(*results, strict=True):
        torch.testing.assert_close(actual, wanted)
    torch.testing.assert_close(layers.state_dict(), expected.state_dict())


def test_keeps_no_map_but_the_input_where_statistics_are_fixed(layers):
    x = torch.randn(2, 6, 16, 16, dtype=torch.float64, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        normed_conv(x, *layers.eval())
    assert [t.shape for t in kept.values() if t.numel() >= x.numel()] == [x.shape]


def test_without_a_norm(layers):
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(normed_conv(x, layers[0], nn.Identity()), layers[0](x))


class Adapted(nn.Module):
    """A convolution with another beside it, as low-rank adapters are built."""

    def __init__(self, conv):
        super().__init__()
        self.conv, self.beside = conv, nn.Conv2d(6, 8, 1, bias=False).double()

    @property
    def weight(self):
        return self.conv.weight

    @property
    def bias(self):
        return self.conv.bias

    def forward(self, x):
        return self.conv(x) + self.beside(x)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Scaled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


def adapt(layers):
    layers[0] = Adapted(layers[0])


def subclass(layers):
    layers[1] = Scaled(8).double()


def patch(layers):
    forward = layers[0].forward
    layers[0].forward = lambda x: 2 * forward(x)


def drop_statistics(layers):
    layers[1] = nn.BatchNorm2d(8, track_running_stats=False).double()


NOT_FOLDED = {
    'pruned': lambda layers: prune.l1_unstructured(layers[0], 'weight', amount=0.5),
    'weight norm of old': lambda layers: weight_norm(layers[0]),
    'weight norm': lambda layers: parametrizations.weight_norm(layers[0]),
    'reparametrized': lambda layers: parametrize.register_parametrization(
        layers[0], 'weight', Doubled()
    ),
    'adapter': adapt,
    'subclass of the norm': subclass,
    'another forward pass': patch,
    'no statistics': drop_statistics,
    'hook': lambda layers: layers[0].register_forward_hook(lambda m, x, out: 2 * out),
    'hook before': lambda layers: layers[1].register_forward_pre_hook(lambda m, x: (2 * x[0],)),
    'hook behind': lambda layers: layers[1].register_full_backward_hook(
        lambda m, x, out: (2 * x[0],)
    ),
}


@pytest.mark.parametrize('change', NOT_FOLDED)
def test_whoever_changes_a_layer_is_asked(layers, change):
    layers.eval()
    assert can_fold(*layers)
    NOT_FOLDED[change](layers)
    layers.eval()
    assert not can_fold(*layers)
    results = []
    for run in (normed_conv, lambda x, conv, norm: norm(conv(x))):
        for _ in range(2):  # a second backward pass finds no graph of the first
            x = torch.arange(2 * 6 * 5 * 4.0).double().sin().view(2, 6, 5, 4).requires_grad_()
            layers.zero_grad()
            out = run(x, *layers)
            out.square().sum().backward()
        results.append([out, x.grad, *(p.grad.clone() for p in layers.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_norm_in_float32_behind_a_half_precision_convolution(layers, dtype):
    layers.eval()
    conv, norm = layers[0].to(dtype), layers[1].float()
    assert not can_fold(conv, norm)
    x = torch.randn(2, 6, 5, 4, dtype=dtype)
    assert torch.equal(normed_conv(x, conv, norm), norm(conv(x)))


def test_hooks_of_all_modules_are_called(layers):
    layers.eval()
    called = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, x, out: called.append(m))
    try:
        normed_conv(torch.randn(2, 6, 5, 4, dtype=torch.float64), *layers)
    finally:
        handle.remove()
    assert called == list(layers)
