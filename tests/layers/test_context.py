"""What surrounds the attention: dense definition, autocast, compilers, copies, memory formats."""

import copy
import pickle

import pytest
import torch
from einops import rearrange

from lesa_mmdet import LESA
from lesa_mmdet.attention import relative_logits
from lesa_mmdet.attention.reference import attend_normalized

BACKENDS = ['reference', 'chunked']
SIZE = (5, 7)


@pytest.fixture
def operator():
    torch.manual_seed(0)
    operator = LESA(16, 16, feat_size=SIZE, num_heads=4)
    for parameter in operator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return operator


@pytest.fixture
def image():
    return torch.randn(2, 16, *SIZE, generator=torch.Generator().manual_seed(0))


def step(function, operator, image):
    """Output and all gradients of a training step."""
    image = image.detach().clone().requires_grad_()
    operator.zero_grad()
    out = function(image)
    out.float().square().sum().backward()
    grads = {name: p.grad.clone() for name, p in operator.named_parameters()}
    return {'output': out.detach(), 'image': image.grad, **grads}


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('backend', BACKENDS)
def test_context_is_the_dense_definition(operator, image, mode, backend):
    context = operator.context.double().train(mode == 'train')
    context.backend = backend

    def dense(x):
        q, k, v = context.project(x)
        row, col = relative_logits(q, context.height, context.width)
        out = attend_normalized(q, k, v, row, col, context.similarity_norm)
        return context.output_norm(rearrange(out, 'b n (h w) d -> b (n d) h w', h=SIZE[0]))

    expected = step(dense, context, image.double())
    torch.testing.assert_close(step(context, context, image.double()), expected)


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(operator, image, mode, backend, dtype):
    operator.train(mode == 'train').context.backend = backend
    expected = step(operator, operator, image)
    with torch.autocast('cpu', dtype):
        actual = step(operator, operator, image)
    assert actual['output'].dtype == dtype
    # All gradients at once: some are next to nothing and consist of rounding.
    for names in (['output'], [name for name in expected if name != 'output']):
        x, y = (torch.cat([of[name].flatten() for name in names]) for of in (actual, expected))
        assert (x - y).norm() <= 10 * torch.finfo(dtype).eps * y.norm(), names


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_model_in_half_precision(operator, image, backend):
    operator.eval().context.backend = backend
    expected = operator(image)
    actual = operator.bfloat16()(image.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('backend', BACKENDS)
def test_compiles_as_one_graph(operator, image, mode, backend):
    operator.train(mode == 'train').context.backend = backend
    plain = copy.deepcopy(operator)
    torch.compiler.reset()
    compiled = torch.compile(operator, backend='aot_eager', fullgraph=True)
    actual, expected = step(compiled, operator, image), step(plain, plain, image)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(operator.state_dict(), plain.state_dict())


@pytest.mark.parametrize('backend', BACKENDS)
def test_copies(operator, image, backend):
    operator.eval().context.backend = backend
    expected = operator(image)
    assert torch.equal(copy.deepcopy(operator)(image), expected)
    assert torch.equal(pickle.loads(pickle.dumps(operator))(image), expected)


@pytest.mark.parametrize('backend', BACKENDS)
def test_channels_last(operator, image, backend):
    operator.eval().context.backend = backend
    expected = step(operator, operator, image)
    operator.to(memory_format=torch.channels_last)
    actual = step(operator, operator, image.to(memory_format=torch.channels_last))
    assert actual['output'].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize('backend', BACKENDS)
def test_no_images(operator, image, backend):
    operator.eval().context.backend = backend
    result = step(operator, operator, image[:0])
    assert result['output'].shape == result['image'].shape == (0, 16, *SIZE)
    assert not result['context.height'].any()
