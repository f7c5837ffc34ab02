import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesa_mmdet.attention import attend, available_backends, support
from lesa_mmdet.attention.decomposed import attend as entrance
from lesa_mmdet.attention.decomposed.reference import attend_reference

from helpers.attention import SIZES

CPU = torch.device('cpu')


@pytest.fixture
def without_triton(monkeypatch):
    """As on a machine without a GPU, where Triton does not run its interpreter."""
    monkeypatch.setattr(support, 'INTERPRETED', False)


@given(sizes=SIZES, backend=st.sampled_from(['auto', 'reference', 'chunked']))
def test_backends_agree(make_inputs, differentiate, assert_close, sizes, backend):
    inputs = make_inputs(*sizes, torch.float32)
    actual = differentiate(lambda *x: attend(*x, backend=backend), inputs)
    expected = differentiate(attend_reference, [x.double() for x in inputs])
    assert_close(actual, expected, 1e-5)


@pytest.mark.parametrize('backend', ['reference', 'chunked'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
def test_softmax_of_half_precision_is_computed_in_float32(
    make_inputs, differentiate, assert_close, backend, dtype, autocast
):
    # Logits of 300 and 300.5: one number in half precision, 8 % apart in the softmax.
    q, k, v, row, col = make_inputs(1, 2, 4, 5, 3, 4, dtype)
    inputs = [0 * q, k, v, 0 * row + 300, 0 * col]
    with torch.no_grad():
        inputs[4][..., 0] = 0.5
    with torch.autocast('cpu', dtype, enabled=autocast):
        actual = differentiate(lambda *x: attend(*x, backend=backend), inputs)
    expected = differentiate(attend_reference, [x.double() for x in inputs])
    assert {x.dtype for x in actual} == {dtype}
    assert_close(actual, expected, 4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_logits_of_minus_infinity_are_those_of_the_definition(make_inputs, differentiate, dtype):
    # 96 positions: where they are no multiple of 32, oneDNN's product of bfloat16 on CPUs with AMX
    # lets a row that is not a number into the one before.
    q, k, v, row, col = (x.detach() for x in make_inputs(1, 2, 12, 8, 4, 8, dtype))
    row[:, :1, :, :8] = -torch.inf
    col[:, :1, ::3, 5:] = -torch.inf
    col[0, 1, 4] = -torch.inf  # all logits of this query of the second head
    inputs = [q, k, v, row, col]
    expected = differentiate(attend_reference, [x.double() for x in inputs])
    assert expected[0][:, 0].isfinite().all() and expected[0][0, 1, 4].isnan().all()
    for backend in ('reference', 'chunked'):
        actual = differentiate(lambda *x, backend=backend: attend(*x, backend=backend), inputs)
        tolerance = 16 * torch.finfo(dtype).eps
        for x, y in zip(actual, expected, strict=True):
            torch.testing.assert_close(
                x.double(), y, rtol=tolerance, atol=tolerance, equal_nan=True
            )


def test_auto_is_dense_on_small_maps_and_linear_on_large_ones(monkeypatch, make_inputs):
    called = []
    for name in ('reference', 'chunked'):
        monkeypatch.setitem(entrance.BACKENDS, name, lambda *x, name=name: called.append(name))
    for size in (4, 16, 17, 40):
        attend(*make_inputs(1, 1, size, size, 2, 2))
    monkeypatch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
    attend(*make_inputs(1, 1, 40, 40, 2, 2))
    assert called == ['reference', 'reference', 'chunked', 'chunked', 'reference']


def test_exports_as_standard_operators(make_inputs):
    class Attention(torch.nn.Module):
        def forward(self, *inputs):
            return attend(*inputs, backend='reference')

    inputs = tuple(make_inputs(1, 2, 3, 4, 3, 3))
    program = torch.export.export(Attention(), inputs)
    assert torch.equal(program.module()(*inputs), attend_reference(*inputs))
    nodes = program.run_decompositions().graph.nodes
    assert {node.target.namespace for node in nodes if node.op == 'call_function'} == {'aten'}


def test_triton_is_imported_where_it_is_used_only():
    module = 'lesa_mmdet.attention.decomposed.triton'
    code = f'import sys, lesa_mmdet.attention; assert {module!r} not in sys.modules'
    subprocess.run([sys.executable, '-c', code], check=True)


def test_unknown_backend(make_inputs, without_triton):
    with pytest.raises(
        ValueError, match="'flash' is unknown; available: auto, reference, chunked$"
    ):
        attend(*make_inputs(1, 1, 2, 2, 2, 2), backend='flash')


def test_unavailable_backend(make_inputs, without_triton):
    assert set(available_backends(CPU)) == {'reference', 'chunked'}
    with pytest.raises(ValueError, match="'triton' needs .*; available: auto, reference, chunked$"):
        attend(*make_inputs(1, 1, 2, 2, 2, 2), backend='triton')


@pytest.mark.parametrize(
    'replaced',
    [
        dict(k=(1, 2, 12, 5)),
        dict(k=(1, 2, 13, 3)),
        dict(v=(2, 2, 12, 3)),
        dict(v=(1, 2, 12)),
        dict(row=(1, 2, 12, 4)),
        dict(col=(1, 1, 12, 4)),
    ],
    ids=str,
)
def test_shapes_that_do_not_belong_together(make_inputs, replaced):
    inputs = dict(zip(('q', 'k', 'v', 'row', 'col'), make_inputs(1, 2, 3, 4, 3, 3), strict=True))
    for name, shape in replaced.items():
        inputs[name] = torch.randn(shape)
        with pytest.raises(
            ValueError, match=rf"q and k have to be .* got .*'{name}': \({shape[0]},"
        ):
            attend(**inputs)


def test_dtypes_and_devices_that_do_not_belong_together(make_inputs):
    q, k, v, row, col = make_inputs(1, 2, 3, 4, 3, 3)
    with pytest.raises(ValueError, match='of one dtype, got q torch.float64, k torch.float32, v'):
        attend(q, k.float(), v, row, col)
    with pytest.raises(ValueError, match='of one device, got q cpu, k cpu, v meta, row cpu'):
        attend(q, k, v.to('meta'), row, col)
    with pytest.raises(ValueError, match='float32 or float64, got torch.int64'):
        attend(*(x.long() for x in (q, k, v, row, col)))


def test_similarities_larger_than_the_memory(monkeypatch, without_triton):
    positions = 256**2
    inputs = [torch.empty(1, 8, positions, size, device='meta') for size in (16, 16, 32, 256, 256)]
    monkeypatch.setattr(support, 'HOST_MEMORY', 255 * 2**30)
    with pytest.raises(
        MemoryError, match='needs 256.0 GiB for 65536 .*; available: auto, chunked$'
    ):
        attend(*inputs, backend='reference')
    monkeypatch.setattr(support, 'HOST_MEMORY', 256 * 2**30)
    monkeypatch.setitem(entrance.BACKENDS, 'reference', lambda *x: 'fits')
    assert attend(*inputs, backend='reference') == 'fits'


def test_auto_takes_what_no_limit_forbids(monkeypatch, make_inputs, without_triton):
    inputs = make_inputs(1, 1, 4, 4, 2, 2)
    for name in ('reference', 'chunked'):
        monkeypatch.setitem(entrance.BACKENDS, name, lambda *x, name=name: name)
    assert attend(*inputs) == 'reference'
    monkeypatch.setattr(support, 'HOST_MEMORY', 16**2)
    assert attend(*inputs) == 'chunked'


def test_a_dtype_without_arithmetic_is_refused(make_inputs):
    inputs = [x.detach().to(torch.float8_e4m3fn) for x in make_inputs(1, 1, 2, 2, 2, 2)]
    for backend in ('auto', 'chunked', 'reference', 'triton'):
        with pytest.raises(ValueError, match='float32 or float64, got torch.float8_e4m3fn'):
            attend(*inputs, backend=backend)
