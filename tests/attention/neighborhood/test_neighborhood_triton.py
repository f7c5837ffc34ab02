"""The Triton kernels: through Triton's interpreter, and compiled where there is a GPU."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.golden import assert_sum_is_the_authors, golden_cases
from helpers.neighborhood import (
    assert_close,
    compute,
    define,
    define_magnitudes,
    make_inputs,
    restride,
    sums,
)
from helpers.paths import ROOT

pytest.importorskip('triton', reason='Triton is not installed')

from lesa_mmdet.attention.neighborhood import triton as launches  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def run_on(device, inputs, dilation=1, grad_out=None):
    inputs = {name: x.to(device) for name, x in inputs.items()}
    results = compute('triton', inputs, dilation, grad_out)
    return {name: x.cpu() for name, x in results.items()}


@pytest.mark.parametrize('case', golden_cases('elsa_op'))
def test_golden(case, device, monkeypatch):
    if device == 'cpu':  # the interpreter takes a large block as long as a small one
        monkeypatch.setattr(launches, 'POSITIONS', 256)
    assert_sum_is_the_authors(case, partial(run_on, device))


@settings(max_examples=15)
@example(  # a hundred terms that cancel to 0.7
    arguments=dict(
        batch=2, heads=1, d=2, height=5, width=10, size=1, dtype=torch.float32, fixed={'mul'}
    ),
    dilation=1,
)
@given(
    arguments=sums(DTYPES, batch=(1, 2), heads=2, height=9, sizes=(1, 3, 5)),
    dilation=st.integers(1, 3),
)
def test_any_shape_is_the_definition(device, arguments, dilation):
    inputs, dtype = make_inputs(**arguments), arguments['dtype']
    results = run_on(device, inputs, dilation)
    assert {x.dtype for x in results.values()} == {dtype}
    # The interpreter cuts where a GPU rounds. The matrices' gradients are sums over all of the map.
    tolerance = max(2 * torch.finfo(dtype).eps, 1e-6)
    magnitudes = define_magnitudes(inputs, dilation)
    assert_close(results, define(inputs, dilation), tolerance, magnitudes)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_any_strides_and_the_memory_order_of_the_values(device, memory_format):
    inputs = make_inputs(1, 2, 4, 5, 9, 3, torch.float32)
    results = run_on(device, restride(inputs, memory_format))
    assert_close(results, define(inputs), 1e-6)
    assert results['output'].is_contiguous(memory_format=memory_format)


def test_values_in_half_precision_meet_weights_in_float32(device):
    inputs = make_inputs(1, 2, 3, 6, 5, 3, torch.float32)
    inputs['v'] = inputs['v'].bfloat16()
    results = run_on(device, inputs)
    assert results['output'].dtype == torch.bfloat16 and results['mul'].dtype == torch.float32
    assert_close(results, define(inputs), 2 * torch.finfo(torch.bfloat16).eps)


def test_two_runs_are_bit_equal(device):
    inputs = make_inputs(2, 2, 4, 9, 9, 3, torch.float32)
    first, second = (run_on(device, inputs) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_compiles_as_one_operation(device):
    inputs = {
        name: x.to(device) for name, x in make_inputs(1, 2, 2, 3, 4, 3, torch.float32).items()
    }
    v, weights, mul, add = inputs.values()
    operators = torch.ops.lesa_mmdet
    for matrices in ((None, add), (mul, add)):
        torch.library.opcheck(operators.attend_neighborhood_triton, (v, weights, *matrices, 1))
        torch.library.opcheck(
            operators.attend_neighborhood_triton_backward,
            (v, v, weights, *matrices, 1, [True, False, True, True]),
        )


@pytest.mark.parametrize(
    'heads, d, dtype, message',
    [(1, 2, torch.float64, 'float64'), (1, 129, torch.float32, '129')],
    ids=['dtype', 'channels'],
)
def test_what_the_kernels_cannot_do_is_refused(device, heads, d, dtype, message):
    inputs = make_inputs(1, heads, d, 2, 3, 3, dtype)
    with pytest.raises(ValueError, match=f"'triton' takes .*{message}; available: auto, reference"):
        run_on(device, inputs)


def test_kernels_compile_for_a_gpu(tmp_path):
    """For compute capabilities 8.0 and 9.0, with reads of 16 bytes at once where channels allow."""
    environment = {name: x for name, x in os.environ.items() if name != 'TRITON_INTERPRET'}
    path = f'{ROOT}{os.pathsep}{environment.get("PYTHONPATH", "")}'
    result = subprocess.run(
        [sys.executable, ROOT / 'tests' / 'programs' / 'compile_neighborhood.py', '80', '90'],
        env={**environment, 'TRITON_CACHE_DIR': str(tmp_path), 'PYTHONPATH': path},
        capture_output=True,
        encoding='utf-8',
    )
    assert result.returncode == 0, result.stderr
    kernels = [
        line.split()[1:] for line in result.stdout.splitlines() if line.startswith('compiled ')
    ]
    names = ['weighted_sum', 'weighted_sum', 'backward_weights']
    assert [name for name, _ in kernels] == 2 * 4 * names
    heads_of_32 = [wide for start in (0, 12) for _, wide in kernels[start : start + 6]]
    assert set(heads_of_32) == {'True'}
