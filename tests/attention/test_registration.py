"""What registering a backend's two passes gives: of a small operator, and of chunked attention."""

import io
import itertools

import pytest
import torch
from torch.autograd import forward_ad

from lesa_mmdet import LESA
from lesa_mmdet.attention import attend
from lesa_mmdet.attention.decomposed.reference import attend_reference
from lesa_mmdet.attention.registration import register_operator


def scaled_product(x, y, factor):
    """What the operator below computes, left to autograd."""
    return x.exp() * factor if y is None else x.exp() * y * factor


@pytest.fixture(scope='module')
def product():
    """An operator with an optional tensor, a number, and a tensor kept for the backward pass."""

    def forward(x, y, factor):
        exponential = x.exp()
        return scaled_product(x, y, factor), exponential

    def backward(grad_out, x, y, factor, out, exponential, needed):
        grads = empty_gradients(grad_out, x, y, factor, out, exponential, needed)
        if needed[0]:
            grads[0].copy_(grad_out * out)
        if needed[1]:
            grads[1].copy_(grad_out * exponential * factor)
        return grads

    def empty_gradients(grad_out, x, y, factor, out, exponential, needed):
        return tuple(torch.empty_like(x) if need else x.new_empty(0) for need in needed)

    return register_operator(
        'quick',
        'scaled_product',
        'Tensor x, Tensor? y, int factor',
        forward=forward,
        backward=backward,
        empty_outputs=lambda x, y, factor: (torch.empty_like(x), torch.empty_like(x)),
        empty_gradients=empty_gradients,
        saved=1,
    )


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, dtype=torch.float64, generator=generator) for _ in range(2)]


class TestOperator:
    @pytest.mark.parametrize('optional', [True, False])
    @pytest.mark.parametrize('needed', itertools.product((True, False), repeat=2))
    def test_gradients_that_are_needed(self, product, pair, optional, needed):
        for x, need in zip(pair, needed, strict=True):
            x.requires_grad_(need)
        x, y = pair[0], pair[1] if optional else None
        wanted = [z for z in (x, y) if z is not None and z.requires_grad]
        out, expected = product(x, y, 3), scaled_product(x, y, 3)
        assert torch.equal(out, expected) and out.requires_grad == bool(wanted)
        if wanted:
            actual = torch.autograd.grad(out.sum(), wanted)
            torch.testing.assert_close(actual, torch.autograd.grad(expected.sum(), wanted))

    def test_gradcheck(self, product, pair):
        x, y = (z.requires_grad_() for z in pair)
        assert torch.autograd.gradcheck(lambda x, y: product(x, y, 2), (x, y))
        assert torch.autograd.gradcheck(
            lambda x, y: product(x, y, 2), (x, y), check_batched_grad=True
        )

    def test_keeps_its_promises_to_compilers(self, product, pair):
        x, y = (z.requires_grad_() for z in pair)
        torch.library.opcheck(torch.ops.lesa_mmdet.scaled_product, (x, y, 2))
        torch.library.opcheck(torch.ops.lesa_mmdet.scaled_product, (x, None, 2))

    def test_transforms(self, product, pair):
        x, y = pair
        for transform in (
            lambda f: torch.func.grad(lambda x, y: f(x, y, 2).sum(), argnums=(0, 1))(x, y),
            lambda f: torch.func.grad(lambda x: f(x, None, 2).sum())(x),
            lambda f: torch.func.vmap(lambda x, y: f(x, y, 2), in_dims=(1, None))(x, y[:, 0]),
            lambda f: torch.func.vmap(lambda x: f(x, None, 2))(x),
            lambda f: torch.func.jacrev(lambda x: f(x, y, 2))(x),
            lambda f: torch.func.vmap(torch.func.grad(lambda x, y: f(x, y, 2).sum()))(x, y),
        ):
            torch.testing.assert_close(transform(product), transform(scaled_product))

    def test_refuses_what_it_has_no_derivative_for(self, product, pair):
        x, y = (z.requires_grad_() for z in pair)
        once = "attention backend 'quick' can be differentiated once; backend 'reference' any"
        (grad,) = torch.autograd.grad(product(x, y, 2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match=once):
            grad.sum().backward()
        with pytest.raises(RuntimeError, match=once):
            torch.func.jacrev(torch.func.grad(lambda x: product(x, y, 2).sum()))(x.detach())
        forward = "backend 'quick' has no derivative in forward mode .*; backend 'reference' has"
        with pytest.raises(NotImplementedError, match=forward):
            torch.func.jvp(lambda x: product(x, y, 2), (x.detach(),), (x.detach(),))
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=forward):
            product(forward_ad.make_dual(x.detach(), x.detach()), y, 2)


class TestChunked:
    """On a map of more positions than 'auto' takes the dense backend for."""

    @pytest.fixture(scope='class')
    def inputs(self, make_inputs):
        return [x.detach() for x in make_inputs(3, 2, 15, 19, 2, 3)]

    def test_transforms(self, inputs):
        def loss(attend, *image):
            return attend(*(x[None] for x in image)).square().sum()

        for backend in ('chunked', 'auto'):

            def chosen(*x, backend=backend):
                return attend(*x, backend=backend)

            for transform in (
                lambda f: torch.func.grad(lambda *x: f(*x).sum(), argnums=(0, 1, 2, 3, 4))(*inputs),
                lambda f: torch.func.vmap(lambda q: f(q, *(x[:1] for x in inputs[1:])))(
                    inputs[0][:, None]
                ),
                lambda f: torch.func.vmap(
                    torch.func.grad(lambda *x: loss(f, *x), argnums=(0, 1, 2, 3, 4))
                )(*inputs),
                lambda f: torch.func.vjp(f, *inputs)[1](inputs[2]),
            ):
                torch.testing.assert_close(transform(chosen), transform(attend_reference))

    def test_the_reference_has_the_derivatives_that_are_refused(self, inputs):
        tangents = tuple(torch.randn_like(x) for x in inputs)

        def directional(backend):
            return torch.func.jvp(lambda *x: attend(*x, backend=backend), tuple(inputs), tangents)

        with pytest.raises(NotImplementedError, match="backend 'chunked' has no derivative in for"):
            directional('auto')
        _, tangent = directional('reference')
        grads = torch.func.grad(lambda *x: attend(*x).sum(), argnums=(0, 1, 2, 3, 4))(*inputs)
        expected = sum((x * y).sum() for x, y in zip(grads, tangents, strict=True))
        torch.testing.assert_close(tangent.sum(), expected)

    @pytest.mark.parametrize('mode', ['train', 'eval'])
    def test_a_traced_operator_is_saved_and_still_learns(self, mode):
        torch.manual_seed(0)
        operator = LESA(8, 8, feat_size=(15, 19), num_heads=2).train(mode == 'train')
        x, y = torch.randn(2, 2, 8, 15, 19)
        file = io.BytesIO()
        torch.jit.save(torch.jit.trace(operator, x, check_trace=False), file)
        file.seek(0)
        loaded = torch.jit.load(file)
        results = []
        for module in (operator, loaded):
            image = y.clone().requires_grad_()
            out = module(image)
            out.square().sum().backward()
            results.append([out, image.grad, *(p.grad for p in module.parameters())])
        torch.testing.assert_close(results[1], results[0])
