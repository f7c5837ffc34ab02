from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesa_mmdet.attention import NEIGHBORHOOD_BACKENDS, attend_neighborhood, support

from helpers.golden import assert_sum_is_the_authors, golden_cases
from helpers.neighborhood import NAMES, assert_close, compute, define, make_inputs, restride, sums

every_backend = pytest.mark.parametrize('backend', [*NEIGHBORHOOD_BACKENDS])


@every_backend
@pytest.mark.parametrize('case', golden_cases('elsa_op'))
def test_golden(case, backend):
    assert_sum_is_the_authors(case, partial(compute, backend))


@given(
    arguments=sums([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    dilation=st.integers(1, 3),
    backend=st.sampled_from(['auto', *NEIGHBORHOOD_BACKENDS]),
)
def test_any_backend_is_the_definition(arguments, dilation, backend):
    inputs, dtype = make_inputs(**arguments), arguments['dtype']
    results = compute(backend, inputs, dilation)
    assert {x.dtype for x in results.values()} == {dtype}
    # Sums are computed in float32 or wider, so that what is left is a result's own rounding.
    assert_close(results, define(inputs, dilation), max(torch.finfo(dtype).eps, 1e-6))


@every_backend
@pytest.mark.parametrize('fixed', [(), ('mul',), ('add',), ('mul', 'add')], ids=str)
def test_gradients_are_those_of_the_sum(backend, fixed):
    inputs = make_inputs(2, 2, 2, 4, 3, 3, fixed=fixed)
    names, tensors = list(inputs), [x.requires_grad_() for x in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *x: attend_neighborhood(
            **dict(zip(names, x, strict=True)), dilation=2, backend=backend
        ),
        tensors,
    )


@every_backend
@pytest.mark.parametrize('needing', NAMES)
def test_what_is_frozen_gets_no_gradient(backend, needing):
    inputs = make_inputs(1, 2, 2, 4, 5, 3)
    expected = compute('reference', inputs)[needing]
    inputs[needing].requires_grad_()
    out = attend_neighborhood(**inputs, backend=backend)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).double())
    assert {name for name, x in inputs.items() if x.grad is not None} == {needing}
    assert inputs[needing].grad.shape == expected.shape


@every_backend
def test_types_may_differ_as_under_autocast(backend):
    """Half-precision values meet a softmax and parameters in float32."""
    inputs = make_inputs(1, 2, 3, 6, 5, 5, torch.float32)
    inputs['v'] = inputs['v'].bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        results = compute(backend, inputs)
    assert results['output'].dtype == results['v'].dtype == torch.bfloat16
    assert {results[name].dtype for name in NAMES[1:]} == {torch.float32}
    expected = define(inputs)
    half = {name: results.pop(name) for name in ('output', 'v')}
    assert_close(half, {name: expected.pop(name) for name in half}, torch.finfo(torch.bfloat16).eps)
    # Their only rounding is that of the output's gradient.
    assert_close(results, expected, torch.finfo(torch.bfloat16).eps)


@every_backend
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_any_strides_and_the_memory_order_of_the_values(backend, memory_format):
    inputs = make_inputs(2, 2, 4, 6, 5, 3)
    results = compute(backend, restride(inputs, memory_format))
    assert_close(results, define(inputs), 1e-12)
    if backend != 'reference':
        assert results['output'].is_contiguous(memory_format=memory_format)


def test_maps_larger_than_a_block_are_the_definition(monkeypatch):
    from lesa_mmdet.attention.neighborhood import shifted

    inputs = make_inputs(5, 4, 2, 6, 7, 3)
    expected = define(inputs)
    for maps in (1, 3, 8):  # a head at a time, three, two images
        monkeypatch.setitem(shifted.BLOCK_BYTES, 'cpu', maps * 2 * 6 * 7 * 8)
        assert_close(compute('shifted', inputs), expected, 1e-12)


def test_memory_does_not_grow_with_the_window():
    """All that the forward pass keeps are its inputs."""
    inputs = make_inputs(1, 2, 4, 16, 16, 7, torch.float32)
    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        attend_neighborhood(**inputs, backend='shifted')
    assert {x.data_ptr() for x in saved} == {x.data_ptr() for x in inputs.values()}


def test_a_second_derivative_is_refused_clearly():
    inputs = {name: x.requires_grad_() for name, x in make_inputs(1, 1, 2, 3, 3, 3).items()}
    out = attend_neighborhood(**inputs, backend='shifted')
    (grad,) = torch.autograd.grad(out.sum(), inputs['v'], create_graph=True)
    with pytest.raises(RuntimeError, match="'shifted' .* differentia.* once; backend 'reference'"):
        grad.sum().backward()


def test_operators_are_well_behaved():
    v, weights, mul, add = make_inputs(1, 2, 2, 4, 3, 3).values()
    ops = torch.ops.lesa_mmdet
    for matrices in ((None, None), (mul, None), (None, add), (mul, add)):
        torch.library.opcheck(ops.attend_shifted, (v, weights, *matrices, 1))
        for needed in ([True] * 4, [True, False, False, False], [False, True, True, True]):
            inputs = (v, v, weights, *matrices, 1, needed)
            torch.library.opcheck(ops.attend_shifted_backward, inputs)


def test_transforms_of_torch_func():
    inputs = make_inputs(3, 2, 2, 4, 3, 3)
    v, matrices = inputs.pop('v'), inputs

    def loss(backend, v, weights):
        out = attend_neighborhood(
            v[None], weights[None], matrices['mul'], matrices['add'], backend=backend
        )
        return out.square().sum()

    results = [
        torch.func.vmap(torch.func.grad(partial(loss, backend), argnums=(0, 1)))(
            v, matrices['weights']
        )
        for backend in NEIGHBORHOOD_BACKENDS
    ]
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_exports_as_standard_operators():
    class Attention(torch.nn.Module):
        def forward(self, *inputs):
            return attend_neighborhood(*inputs, backend='reference')

    inputs = tuple(make_inputs(1, 2, 2, 4, 5, 3).values())
    program = torch.export.export(Attention(), inputs)
    assert torch.equal(program.module()(*inputs), attend_neighborhood(*inputs, backend='reference'))


def test_auto_shifts_but_for_export(monkeypatch):
    called = []
    for name in NEIGHBORHOOD_BACKENDS:
        monkeypatch.setitem(NEIGHBORHOOD_BACKENDS, name, lambda *x, name=name: called.append(name))
    inputs = make_inputs(1, 1, 2, 3, 3, 3)
    attend_neighborhood(**inputs)
    monkeypatch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
    attend_neighborhood(**inputs)
    assert called == ['shifted', 'reference']


@pytest.mark.parametrize(
    'replaced',
    [
        dict(v=(4, 6, 5)),
        dict(v=(2, 4, 6, 5)),
        dict(v=(1, 5, 6, 5)),
        dict(weights=(1, 2, 8, 6, 5)),
        dict(weights=(1, 2, 4, 6, 5)),
        dict(weights=(1, 18, 6, 5)),
        dict(weights=(1, 2, 9, 5, 6)),
        dict(mul=(4, 9)),
        dict(add=(4, 5, 5)),
    ],
    ids=str,
)
def test_shapes_that_do_not_belong_together(replaced):
    inputs = make_inputs(1, 2, 2, 6, 5, 3)
    for name, shape in replaced.items():
        inputs[name] = torch.randn(shape)
        with pytest.raises(ValueError, match=rf"v has to be .* got .*'{name}': \({shape[0]},"):
            attend_neighborhood(**inputs)


def test_other_arguments_that_do_not_fit(monkeypatch):
    inputs = make_inputs(1, 2, 2, 6, 5, 3)
    with pytest.raises(ValueError, match="'dense' is unknown; available: auto, reference, shifted"):
        attend_neighborhood(**inputs, backend='dense')
    with pytest.raises(ValueError, match='dilation has to be 1 or more, got 0'):
        attend_neighborhood(**inputs, dilation=0)
    with pytest.raises(ValueError, match='of one device, got v cpu, weights meta, mul cpu'):
        attend_neighborhood(**{**inputs, 'weights': inputs['weights'].to('meta')})
    with pytest.raises(ValueError, match='add has to be float16, .* or float64, got torch.int64'):
        attend_neighborhood(**{**inputs, 'add': inputs['add'].long()})
    monkeypatch.setattr(support, 'HOST_MEMORY', 2**30)
    large = (torch.empty(1, 192, 100, 168), torch.empty(1, 6, 49, 100, 168))
    with pytest.raises(MemoryError, match='needs 1.2 GiB for 49 neighbours .* available: auto, sh'):
        attend_neighborhood(*large, backend='reference')


def test_triton_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(support, 'INTERPRETED', False)
    with pytest.raises(ValueError, match="'triton' needs .*; available: auto, reference, shifted$"):
        attend_neighborhood(**make_inputs(1, 2, 2, 6, 5, 3), backend='triton')
