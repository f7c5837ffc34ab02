import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from lesa_mmdet.layers.norm import normed_conv


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
    for actual, wanted in zip(*results):
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
