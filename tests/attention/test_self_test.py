"""The self-test: it passes here, and notices what is wrong with a backend."""

import pytest
import torch

from lesa_mmdet.attention import self_test
from lesa_mmdet.attention.decomposed import attend as decomposed
from lesa_mmdet.attention.support import DTYPES

from helpers.attention import with_gradient
from helpers.paths import ROOT

CPU = torch.device('cpu')


@pytest.fixture
def chunked(monkeypatch):
    """Replaces the backend 'chunked', and leaves 'reference' beside it alone."""
    ours = decomposed.BACKENDS['chunked']

    def replace(change):
        monkeypatch.setitem(decomposed.BACKENDS, 'chunked', change(ours))
        operation = self_test.OPERATIONS['decomposed']
        operation = operation._replace(backends=lambda _: decomposed.BACKENDS)
        monkeypatch.setattr(self_test, 'OPERATIONS', dict(decomposed=operation))
        monkeypatch.setattr(self_test, 'MAP', (4, 5))
        return {(r.backend, r.dtype): r for r in self_test.run(CPU)}

    return replace


def test_every_backend_and_dtype_passes(chunked):
    results = chunked(lambda ours: ours)
    assert set(results) == {(name, x) for name in ('reference', 'chunked') for x in DTYPES}
    assert all(result.passed and result.seconds > 0 for result in results.values())


@pytest.mark.parametrize('factor', [1.001, float('nan')])
def test_wrong_output_is_noticed(chunked, factor):
    results = chunked(lambda ours: lambda *inputs: factor * ours(*inputs))
    single = results['chunked', torch.float32]
    assert not single.forward <= single.allowed and not single.backward <= single.allowed
    assert not single.passed and 'WRONG' in str(single)
    assert results['reference', torch.float32].passed


def test_wrong_gradient_alone_is_noticed(chunked):
    def change(ours):
        def attend(q, *others):
            return ours(q + 1e-3 * (q - q.detach()), *others)  # the same number

        return attend

    single = chunked(change)['chunked', torch.float32]
    assert single.forward <= single.allowed < single.backward
    assert not single.passed


@pytest.mark.parametrize('place', range(5))
def test_one_gradient_that_is_no_number_is_noticed(chunked, place):
    spoil = with_gradient(lambda grad: grad * float('nan'))

    def change(ours):
        return lambda *inputs: ours(*(spoil(x) if x is inputs[place] else x for x in inputs))

    single = chunked(change)['chunked', torch.float32]
    assert single.forward <= single.allowed and not single.passed


def test_backend_that_raises_fails_and_the_others_go_on(chunked):
    def change(ours):
        def attend(*inputs):
            raise RuntimeError('no kernel image\nfor this device')

        return attend

    results = chunked(change)
    assert 'FAILED: RuntimeError: no kernel image' in str(results['chunked', torch.float16])
    assert results['reference', torch.float16].passed


def test_tool_says_so_with_its_exit_code(run, tmp_path):
    out = run('tools/check_env.py', '--report', forked=True, TRITON_INTERPRET='0')
    assert 'MMDetection: ' in out and 'PyTorch: ' in out and 'WRONG' not in out
    assert out.count(' ok') >= 2 * len(DTYPES)
    broken = tmp_path / 'broken.py'
    broken.write_text(
        'import runpy, sys\n'
        'from lesa_mmdet.attention.decomposed import attend\n'
        "ours = attend.BACKENDS['chunked']\n"
        "attend.BACKENDS['chunked'] = lambda *inputs: 1.01 * ours(*inputs)\n"
        "sys.argv = ['check_env.py', '--self-test']\n"
        f"runpy.run_path({str(ROOT / 'tools' / 'check_env.py')!r}, run_name='__main__')\n",
        encoding='utf-8',
    )
    out = run(broken, succeeds=False, TRITON_INTERPRET='0', PYTHONPATH=str(ROOT))
    assert 'WRONG' in out and 'a backend does not compute what the definition says' in out
