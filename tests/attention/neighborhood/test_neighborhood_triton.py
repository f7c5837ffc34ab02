"""The Triton kernels: through Triton's interpreter, and compiled where there is a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('triton', reason='Triton is not installed')

from lesa_mmdet.attention import support  # noqa: E402
from lesa_mmdet.attention.neighborhood.attend import attend_neighborhood  # noqa: E402

from helpers.golden import assert_close_to_largest, golden_cases  # noqa: E402
from helpers.neighborhood import NAMES, assert_close, define, make_inputs, run  # noqa: E402
from helpers.paths import ROOT  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(
            'cpu',
            marks=pytest.mark.skipif(
                not support.INTERPRETED, reason='with a GPU the kernels are compiled'
            ),
        ),
        pytest.param(
            'cuda',
            marks=pytest.mark.skipif(
                support.INTERPRETED, reason='no GPU, or TRITON_INTERPRET is set'
            ),
        ),
    ],
)
def device(request):
    return request.param


def run_on(device, inputs, dilation=1, grad_out=None):
    results = run(
        lambda **x: attend_neighborhood(**x, dilation=dilation, backend='triton'),
        {name: x.to(device) for name, x in inputs.items()},
        grad_out,
    )
    return {name: x.cpu() for name, x in results.items()}


@pytest.mark.parametrize('case', golden_cases('elsa_op'))
def test_golden(case, device):
    info = case.info
    images = {
        key: torch.from_numpy(case.fill.image(info['seeds'][key], shape))
        for key, shape in info['shapes'].items()
    }
    weights = images['attention'].unflatten(1, (-1, info['kernel_size'] ** 2))
    inputs = dict(v=images['v'], weights=weights)
    inputs.update({key[6:]: x for key, x in images.items() if key.startswith('ghost_')})
    grad_out = torch.from_numpy(case.fill.image(info['seeds']['grad_output'], images['v'].shape))
    results = run_on(device, inputs, info['dilation'], grad_out.to(device))
    assert_close_to_largest(results.pop('output'), case['output'], 1e-5, 'output')
    renamed = dict(v='v', weights='attention', mul='ghost_mul', add='ghost_add')
    for name, grad in results.items():
        expected = case[f'grad_{renamed[name]}']
        assert_close_to_largest(grad.reshape(expected.shape), expected, 1e-5, name)


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 2),
    d=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 12),
    size=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 3),
    fixed=st.sets(st.sampled_from(NAMES[2:])),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape_is_the_definition(
    device, batch, heads, d, height, width, size, dilation, fixed, dtype
):
    inputs = make_inputs(batch, heads, d, height, width, size, dtype, fixed)
    results = run_on(device, inputs, dilation)
    assert {x.dtype for x in results.values()} == {dtype}
    # The interpreter cuts where a GPU rounds.
    assert_close(results, define(inputs, dilation), max(2 * torch.finfo(dtype).eps, 1e-6))


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_any_strides_and_the_memory_order_of_the_values(device, memory_format):
    inputs = make_inputs(1, 2, 4, 5, 9, 3, torch.float32)
    expected = define(inputs)
    wide = torch.cat((inputs['v'], inputs['v']), 1).contiguous(memory_format=memory_format)
    inputs['v'] = wide[:, 8:]
    inputs['weights'] = inputs['weights'].permute(3, 4, 0, 1, 2).contiguous().permute(2, 3, 4, 0, 1)
    results = run_on(device, inputs)
    assert_close(results, expected, 1e-6)
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
        [sys.executable, ROOT / 'tests' / 'helpers' / 'compile_neighborhood.py', '80', '90'],
        env={**environment, 'TRITON_CACHE_DIR': str(tmp_path), 'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    kernels = [line.split() for line in result.stdout.splitlines() if line.startswith('_')]
    names = ['_sum', '_sum', '_backward_weights']
    assert [name for name, _ in kernels] == 2 * 4 * names
    heads_of_32 = [wide for start in (0, 12) for _, wide in kernels[start : start + 6]]
    assert set(heads_of_32) == {'True'}
