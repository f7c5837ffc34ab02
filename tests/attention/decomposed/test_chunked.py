import ctypes
import itertools
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from lesa_mmdet.attention.decomposed import chunked
from lesa_mmdet.attention.decomposed.chunked import attend_chunked
from lesa_mmdet.attention.decomposed.reference import attend_reference

from helpers.attention import SIZES

TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}


@pytest.fixture(scope='module', autouse=True)
def small_blocks():
    """16 queries a block, so that small maps take several and the last one is smaller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunked.BLOCK_BYTES, 'cpu', 1)
        yield


@given(
    sizes=SIZES,
    dtype=st.sampled_from(list(TOLERANCES)),
    layout=st.sampled_from(['channels', 'places', 'strided']),
    onednn=st.booleans(),
)
def test_output_and_gradients_are_those_of_the_reference(
    make_inputs, differentiate, assert_close, sizes, dtype, layout, onednn
):
    inputs = make_inputs(*sizes, dtype, layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, 'ONEDNN', onednn and chunked.HAS_ONEDNN)
        actual = differentiate(attend_chunked, inputs)
    expected = differentiate(attend_reference, [x.double() for x in inputs])
    assert {x.dtype for x in actual} == {dtype}
    assert_close(actual, expected, TOLERANCES[dtype])


@given(scale=st.sampled_from([1, 50, 700]), seed=st.integers(0, 99))
def test_extreme_logits(make_inputs, differentiate, assert_close, scale, seed):
    # Whole numbers: logits up to 1e4 are exact in float32, too.
    q, k, v, row, col = make_inputs(1, 2, 5, 7, 4, 4, torch.float32, seed=seed)
    inputs = [scale * (3 * q).round(), k.round(), v, *(scale * (3 * x).round() for x in (row, col))]
    actual = differentiate(attend_chunked, inputs)
    expected = differentiate(attend_reference, [x.double() for x in inputs])
    for results in (actual, expected):
        results[2].div_(scale)  # the gradient of k, a sum of queries
    assert_close(actual, expected, 1e-5)


def test_equal_logits_give_the_mean_of_the_values(make_inputs):
    q, k, v, row, col = make_inputs(1, 2, 5, 7, 4, 4)
    out = attend_chunked(0 * q, k, v, 0 * row + 1e4, 0 * col - 1e4)
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(out))


def test_expanded_inputs_and_gradients(make_inputs, assert_close):
    q, k, v, row, col = make_inputs(1, 3, 5, 7, 4, 4, torch.float32)
    results = []
    for attend in (attend_chunked, attend_reference):
        inputs = [
            x.detach() for x in (q[:, :1].expand_as(q), k, v, row, col[:, :, :1].expand_as(col))
        ]
        if attend is attend_reference:
            inputs = [x.double() for x in inputs]
        inputs = [x.requires_grad_() for x in inputs]
        out = attend(*inputs)
        results.append((out, *torch.autograd.grad(out.sum(), inputs)))
    assert_close(*results, 1e-5)


def test_two_runs_are_equal_in_every_bit(make_inputs, differentiate):
    inputs = make_inputs(2, 4, 17, 13, 16, 32, torch.float32)
    first, second = (differentiate(attend_chunked, inputs) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_gradcheck(make_inputs):
    assert torch.autograd.gradcheck(attend_chunked, make_inputs(2, 1, 3, 6, 2, 3))


def test_only_needed_gradients_are_computed(make_inputs):
    inputs = make_inputs(2, 2, 5, 7, 4, 3)
    grad_out = torch.randn_like(inputs[2])
    everything = torch.autograd.grad(attend_chunked(*inputs), inputs, grad_out)
    tensors = [x.detach() for x in (grad_out, *inputs)]
    for needed in itertools.product((True, False), repeat=5):
        grads = chunked._backward(*tensors, needed)
        for grad, expected, need in zip(grads, everything, needed, strict=True):
            assert torch.equal(grad, expected) if need else grad.numel() == 0


class LargestTensor(TorchDispatchMode):
    """Records the most elements that an operator returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize('size', [16, 32])
def test_nothing_is_as_large_as_the_similarities(make_inputs, size):
    heads, places = 2, size**2
    inputs = make_inputs(1, heads, size, size, 2, 2, torch.float32)
    with torch.no_grad(), LargestTensor() as largest:
        grad_out = chunked._forward(*inputs)
        chunked._backward(grad_out, *inputs, [True] * 5)
    assert largest.elements == heads * places * max(16, size)  # 16 queries; row and col


# How many tensors of 30 MiB come from the system and not from the heap: 1 if glibc would return a
# heap's end of less than twice that.
MAPPED_AFTER_ATTENTION = """
import ctypes

import torch
from lesa_mmdet.attention.decomposed.chunked import attend_chunked

class Mallinfo2(ctypes.Structure):
    names = 'arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost'
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo2
attend_chunked(*torch.ones(5, 1, 1, 1, 1))
before = mallinfo().hblks
tensor = torch.empty(30 << 20, dtype=torch.uint8)
print(mallinfo().hblks - before)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), 'mallinfo2'), reason='needs glibc 2.33: mallinfo2'
)
@pytest.mark.parametrize(('switch', 'mapped'), [({}, 0), ({'LESA_KEEP_FREED_BLOCKS': '0'}, 1)])
def test_freed_blocks_are_kept_for_the_next_ones(switch, mapped):
    done = subprocess.run(
        [sys.executable, '-c', MAPPED_AFTER_ATTENTION],
        env={**os.environ, **switch},
        check=True,
        stdout=subprocess.PIPE,
        encoding='utf-8',
    )
    assert int(done.stdout.split()[-1]) == mapped  # behind what OneDL says of itself


def test_checkpointed(make_inputs, differentiate):
    inputs = make_inputs(1, 2, 5, 7, 4, 4)
    plain = differentiate(attend_chunked, inputs)
    again = differentiate(lambda *x: checkpoint(attend_chunked, *x, use_reentrant=False), inputs)
    assert all(map(torch.equal, plain, again))


@pytest.mark.parametrize('dynamic', [False, True])
def test_compiles_as_one_graph(make_inputs, differentiate, assert_close, dynamic):
    torch.compiler.reset()
    compiled = torch.compile(attend_chunked, backend='aot_eager', fullgraph=True, dynamic=dynamic)
    for size in (5, 6) if dynamic else (5,):
        inputs = make_inputs(1, 2, size, 7, 4, 4)
        expected = differentiate(attend_chunked, inputs)
        assert_close(differentiate(compiled, inputs), expected, 1e-12)


@pytest.mark.parametrize('layout', ['channels', 'places'])
def test_operators_promise_what_they_return(make_inputs, layout):
    inputs = [x.detach() for x in make_inputs(2, 2, 5, 4, 3, 3, layout=layout)]
    operators = torch.ops.lesa_mmdet
    out = operators.attend_chunked(*inputs)
    torch.library.opcheck(operators.attend_chunked, [x.clone().requires_grad_() for x in inputs])
    for needed in ([True] * 5, [True, False, True, False, True]):
        torch.library.opcheck(operators.attend_chunked_backward, (out, *inputs, needed))
