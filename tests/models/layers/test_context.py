"""What surrounds the attention: dense definition, weights, autocast, compilers, copies, formats."""

import copy
import pickle

import pytest
import torch
from einops import rearrange

from lesa_mmdet import LESA
from lesa_mmdet.attention import relative_logits
from lesa_mmdet.attention.decomposed.reference import attend_flattened_normalized, attend_normalized
from lesa_mmdet.models.layers.context import POSITIONS, build_context

from helpers.modules import randomized

SIZE = (5, 7)
FORMS = {
    'reference': dict(backend='reference'),
    'chunked': dict(backend='chunked'),
    'flattened': dict(position='flattened'),
}


@pytest.fixture(params=FORMS)
def operator(request):
    torch.manual_seed(0)
    return randomized(LESA(16, 16, feat_size=SIZE, num_heads=4, **FORMS[request.param]))


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


def attend_dense(context, x):
    """Queries of a map (B, C, H, W), attended values (and embeddings) by the dense definition."""
    q, k, v = context.project(x)
    if hasattr(context, 'relative'):
        outputs = attend_flattened_normalized(q, k, v, context.relative, context.similarity_norm)
        return join(context, outputs, x)
    row, col = relative_logits(q, context.height, context.width)
    out = attend_normalized(q, k, v, row, col, context.similarity_norm)
    return join(context, (out,), x)


def join(context, outputs, x):
    """Norm of one or two outputs (B, heads, H * W, d), whose channels alternate, and their sum."""
    both = torch.stack(outputs, dim=-1)
    both = rearrange(both, 'b n (h w) d two -> b (n d two) h w', h=x.shape[-2])
    return context.output_norm(both).unflatten(1, (-1, len(outputs))).sum(2)


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_context_is_the_dense_definition(operator, image, mode):
    context = operator.context.double().train(mode == 'train')
    expected = step(lambda x: attend_dense(context, x), context, image.double())
    torch.testing.assert_close(step(context, context, image.double()), expected)


def dense_weights(context, x):
    """The softmax's weights: what the dense definition gives for one-hot values."""
    q, k, v = context.project(x)
    count = q.shape[2]
    one_hot = torch.eye(count, dtype=x.dtype).expand(*v.shape[:2], -1, -1)
    if hasattr(context, 'relative'):
        table = context.relative[: 2 * context.key_dim]
        table = torch.cat((table, table.new_zeros(count, table.shape[1])))
        return attend_flattened_normalized(q, k, one_hot, table, context.similarity_norm)[0]
    row, col = relative_logits(q, context.height, context.width)
    return attend_normalized(q, k, one_hot, row, col, context.similarity_norm)


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('size', [(4, 5), (8, 8), (9, 15)])  # below, at and above a block of 64
class TestWeights:
    @pytest.fixture
    def context(self, position, size):
        torch.manual_seed(0)
        context = build_context(16, 16, position=position, feat_size=size, num_heads=4)
        return randomized(context.double().eval(), std=1)

    @pytest.fixture
    def x(self, size):
        return torch.randn(2, 16, *size, dtype=torch.float64)

    def test_are_those_of_the_dense_definition(self, context, x):
        expected = dense_weights(context, x)
        queries = torch.randperm(x[0, 0].numel())[:7]
        weights = context.weights(context.factors(x), queries)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        torch.testing.assert_close(weights, expected[:, :, queries])

    def test_unary_weights_are_the_diagonal(self, context, x):
        unary = context.unary_weights(context.factors(x))
        expected = dense_weights(context, x).diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(unary, expected)

    def test_ablation_drops_the_weight_of_each_position_for_itself(self, context, x):
        v = context.project(x)[2]
        position = torch.arange(v.shape[2])
        weights = dense_weights(context, x)
        weights[..., position, position] = 0
        outputs = (weights @ v,)
        if hasattr(context, 'relative'):
            offsets = position[:, None] - position + len(position) - 1
            embeddings = context.relative[2 * context.key_dim :, offsets]
            outputs += (torch.einsum('bnij,dij->bnid', weights, embeddings),)
        plain = context(x)
        context.ablate_unary = True
        torch.testing.assert_close(context(x), join(context, outputs, x))
        assert not torch.allclose(context(x), plain, rtol=0.01)


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(operator, image, mode, dtype):
    operator.train(mode == 'train')
    expected = step(operator, operator, image)
    with torch.autocast('cpu', dtype):
        actual = step(operator, operator, image)
    assert actual['output'].dtype == dtype
    # All gradients at once: some are next to nothing and consist of rounding.
    for names in (['output'], [name for name in expected if name != 'output']):
        x, y = (torch.cat([of[name].flatten() for name in names]) for of in (actual, expected))
        assert (x - y).norm() <= 10 * torch.finfo(dtype).eps * y.norm(), names


def test_a_model_in_half_precision(operator, image):
    operator.eval()
    expected = operator(image)
    actual = operator.bfloat16()(image.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_trains_in_half_precision(operator, image, mode, dtype):
    operator.train(mode == 'train')
    expected = step(operator, operator, image)
    actual = step(operator, operator.to(dtype), image.to(dtype))
    assert {x.dtype for x in actual.values()} == {dtype}
    for names in (['output'], [name for name in expected if name != 'output']):
        x, y = (
            torch.cat([of[name].float().flatten() for name in names]) for of in (actual, expected)
        )
        # Parameters and all maps are rounded, too, those of the batch norms included.
        tolerance = {torch.float16: 0.05, torch.bfloat16: 0.15}[dtype]
        assert (x - y).norm() <= tolerance * y.norm(), names


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_gradients_of_each_image_by_torch_func(operator, image, mode):
    operator.train(mode == 'train').double()
    parameters = dict(operator.named_parameters())
    buffers = {name: x.clone() for name, x in operator.named_buffers()}

    def loss(parameters, x):
        state = {**parameters, **{name: x.clone() for name, x in buffers.items()}}
        return torch.func.functional_call(operator, state, (x,)).square().sum()

    (expected,) = image.double()[:1, None]
    actual = torch.func.grad(loss)(parameters, expected)
    operator.zero_grad()
    operator(expected).square().sum().backward()
    torch.testing.assert_close(actual, {name: p.grad for name, p in parameters.items()})
    if mode == 'eval':
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(
            parameters, image.double()[:, None]
        )
        torch.testing.assert_close({name: x[0] for name, x in each.items()}, actual)


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_compiles_as_one_graph(operator, image, mode):
    operator.train(mode == 'train')
    plain = copy.deepcopy(operator)
    torch.compiler.reset()
    compiled = torch.compile(operator, backend='aot_eager', fullgraph=True)
    actual, expected = step(compiled, operator, image), step(plain, plain, image)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(operator.state_dict(), plain.state_dict())


def test_copies(operator, image):
    operator.eval()
    expected = operator(image)
    assert torch.equal(copy.deepcopy(operator)(image), expected)
    assert torch.equal(pickle.loads(pickle.dumps(operator))(image), expected)


def test_a_saved_trace(operator, image, tmp_path):
    expected = step(operator, operator, image)
    torch.jit.trace(operator, image, check_trace=False).save(tmp_path / 'operator.pt')
    loaded = torch.jit.load(tmp_path / 'operator.pt')
    torch.testing.assert_close(step(loaded, loaded, image), expected)


def test_tables_start_anew(operator):
    with torch.device('meta'):
        operator = copy.deepcopy(operator.context).to('meta')
    operator.to_empty(device='cpu')
    for parameter in operator.parameters():
        torch.nn.init.constant_(parameter, float('nan'))
    operator.init_weights()
    for name in ('qkv.weight', 'height', 'width', 'relative'):
        parameter = dict(operator.named_parameters()).get(name)
        assert parameter is None or parameter.isfinite().all(), name


def test_channels_last(operator, image):
    operator.eval()
    expected = step(operator, operator, image)
    operator.to(memory_format=torch.channels_last)
    actual = step(operator, operator, image.to(memory_format=torch.channels_last))
    assert actual['output'].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual, expected)


def test_no_images(operator, image):
    operator.eval()
    result = step(operator, operator, image[:0])
    assert result['output'].shape == result['image'].shape == (0, 16, *SIZE)
    tables = [name for name in result if name.split('.')[-1] in ('height', 'width', 'relative')]
    assert tables and not any(result[name].any() for name in tables)
