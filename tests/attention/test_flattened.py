"""Attention with flattened offsets, its norm folded in, against the dense definition."""

import copy
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lesa_mmdet.attention import attend_flattened, flattened_scales, pairwise_embeddings
from lesa_mmdet.attention.decomposed.reference import attend_flattened_normalized

HEADS = 2


def make_inputs(batch, places, d, dv, dtype=torch.float64):
    """Queries, keys, values and the table, views of a map's channels as in an operator."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, HEADS, 2 * d + dv, places, generator=generator, dtype=dtype)
    table = torch.randn(2 * d + dv, 2 * places - 1, generator=generator, dtype=dtype)
    return [*qkv.transpose(-1, -2).split((d, d, dv), dim=-1), table]


def make_norm(dtype=torch.float64, **kwargs):
    norm = nn.BatchNorm2d(3 * HEADS, dtype=dtype, **kwargs)
    for x in norm.state_dict().values():
        if x.is_floating_point():
            nn.init.uniform_(x, 0.5, 1.5)
    return norm


def attend_dense(norm, q, k, v, table):
    return torch.cat(attend_flattened_normalized(q, k, v, table, norm), dim=-1)


def attend_folded(norm, q, k, v, table):
    content, query, key = (scale[:, None, None] for scale in flattened_scales(norm, q, k, table))
    embeddings = pairwise_embeddings(table, q.shape[-1])
    return torch.cat(attend_flattened(q * content, k, v, q * query, k * key, *embeddings), dim=-1)


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize(
    'kwargs',
    [{}, dict(momentum=None), dict(affine=False), dict(track_running_stats=False)],
    ids=str,
)
@given(
    batch=st.integers(1, 3), places=st.integers(2, 13), d=st.integers(1, 4), dv=st.integers(1, 5)
)
def test_is_the_dense_definition(differentiate, assert_close, mode, kwargs, batch, places, d, dv):
    inputs = make_inputs(batch, places, d, dv)
    dense = make_norm(**kwargs).train(mode == 'train')
    folded = copy.deepcopy(dense)
    for _ in range(2):  # running statistics of two steps
        expected = differentiate(lambda *x: attend_dense(dense, *x), inputs)
        actual = differentiate(lambda *x: attend_folded(folded, *x), inputs)
        assert_close(actual, expected, 1e-9, ('output', 'q', 'k', 'v', 'table'))
    torch.testing.assert_close(folded.state_dict(), dense.state_dict())


def test_the_norm_trains():
    inputs = make_inputs(2, 7, 3, 4)
    dense = make_norm()
    folded = copy.deepcopy(dense)
    for attend, norm in ((attend_dense, dense), (attend_folded, folded)):
        attend(norm, *inputs).square().sum().backward()
    torch.testing.assert_close(folded.weight.grad, dense.weight.grad)
    # The softmax cancels the bias: zero, but there, or DistributedDataParallel would complain.
    assert torch.equal(folded.bias.grad, torch.zeros(3 * HEADS))
    assert dense.bias.grad.abs().max() < 1e-12


def test_embeddings_are_the_tables_entries_of_each_offset():
    table = torch.randn(9, 2 * 5 - 1)
    embeddings = torch.cat(pairwise_embeddings(table, 2), dim=-1)
    for a in range(5):
        for b in range(5):
            assert torch.equal(embeddings[a, b], table[:, a - b + 4])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
def test_softmax_of_half_precision_is_computed_in_float32(
    differentiate, assert_close, dtype, autocast
):
    # Logits of 300 and 300.5: one number in half precision, 8 % apart in the softmax.
    places = 6
    ones = torch.ones(1, HEADS, places, 1, dtype=dtype)
    embedding = torch.full((places, places, 1), 300.0, dtype=dtype)
    step = torch.zeros(places, places, 1, dtype=dtype)
    step[:3] = 0.5
    v = make_inputs(1, places, 1, 4, dtype)[2]
    of_value = v[0, 0].expand(places, -1, -1)
    inputs = [0 * ones, ones, v, ones, ones, embedding, step, of_value]

    def attend(*x):
        return torch.cat(attend_flattened(*x), dim=-1)

    with torch.autocast('cpu', dtype, enabled=autocast):
        actual = differentiate(attend, inputs)
    expected = differentiate(attend, [x.double() for x in inputs])
    names = ('output', 'q', 'k', 'v', 'query', 'key', 'of_query', 'of_key', 'of_value')
    assert {x.dtype for x in actual} == {dtype}
    assert_close(actual, expected, 4 * torch.finfo(dtype).eps, names)


def test_any_number_of_derivatives():
    inputs = [x.requires_grad_() for x in make_inputs(1, 4, 2, 2)]
    norm = make_norm()
    assert torch.autograd.gradcheck(lambda *x: attend_folded(norm, *x), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: attend_folded(norm, *x), inputs)


class LiveTensors(TorchDispatchMode):
    """Counts storages of some size or more that are alive at once."""

    def __init__(self, nbytes):
        super().__init__()
        self.nbytes = nbytes
        self.alive = weakref.WeakSet()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().nbytes() >= self.nbytes:
                self.alive.add(x.untyped_storage())
        self.most = max(self.most, len(self.alive))
        return out


@pytest.mark.parametrize('training', [False, True])
def test_two_tensors_of_the_similarities_beside_the_softmax(training):
    batch, places = 32, 40
    inputs = [x.requires_grad_() for x in make_inputs(batch, places, 2, 3)]
    norm = make_norm().train(training)
    with LiveTensors(batch * HEADS * places**2 * 8) as live:
        out = attend_folded(norm, *inputs)
        assert len(live.alive) == 1  # the softmax, for the backward pass
        assert live.most <= 2 + 1
        out.square().sum().backward()
    assert len(live.alive) == 0
    assert live.most <= 2 + 1


def test_the_count_sees_the_tensors_of_the_dense_definition():
    batch, places = 32, 40
    inputs = [x.requires_grad_() for x in make_inputs(batch, places, 2, 3)]
    with LiveTensors(batch * HEADS * places**2 * 8) as live:
        attend_dense(make_norm(), *inputs).square().sum().backward()
    assert live.most > 4
