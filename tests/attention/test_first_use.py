"""Triton's first use: 'auto' takes it if it agrees with the definition, through the interpreter."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo.testing

from lesa_mmdet.attention import attend, attend_neighborhood, first_use, self_test, support
from lesa_mmdet.attention.decomposed import attend as decomposed
from lesa_mmdet.attention.neighborhood import attend as neighborhood

from helpers.attention import with_gradient

pytestmark = pytest.mark.skipif(
    not (support.HAS_TRITON and support.INTERPRETED), reason="needs Triton's interpreter"
)


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """'auto' prefers Triton, here on the CPU, and nothing has been tried yet."""
    monkeypatch.setattr(support, 'prefers_triton', lambda device: True)
    monkeypatch.setattr(first_use, '_PASSED', {})


@pytest.fixture
def calls(monkeypatch):
    """Which backends have computed, with what; a change may be injected into Triton's."""
    log = []

    def watch(module, change=lambda out: out):
        ours = module._attend_triton

        def triton(*inputs):
            log.append(('triton', inputs[0].shape))
            return change(ours(*inputs))

        monkeypatch.setattr(module, '_attend_triton', triton)
        backends = 'BACKENDS' if module is decomposed else 'NEIGHBORHOOD_BACKENDS'
        for name, backend in getattr(module, backends).items():

            def other(*inputs, name=name, backend=backend):
                log.append((name, inputs[0].shape))
                return backend(*inputs)

            monkeypatch.setitem(getattr(module, backends), name, other)
        return log

    return watch


def raise_no_compiler(out):
    raise RuntimeError('Failed to find C compiler.\nPlease specify via CC')


FAULTS = [
    (lambda out: 1.05 * out, 'gave an output off by'),
    (lambda out: out * float('nan'), 'gave an output off by nan'),
    (with_gradient(lambda grad: 1.05 * grad), 'gave gradients off by'),
    (raise_no_compiler, 'raised RuntimeError: Failed to find C compiler.'),
]


def a_map(d=8, dtype=torch.float32, rows=5, cols=4):
    torch.manual_seed(0)
    sizes = (d, d, d, rows, cols)
    return [torch.randn(1, 1, rows * cols, size).to(dtype) for size in sizes]


def a_window(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.randn(1, 4, 5, 4).to(dtype), torch.randn(1, 2, 9, 5, 4).to(dtype)]


def test_first_use_tries_once_for_each_type_and_width(calls):
    log = calls(decomposed)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for inputs in (a_map(), a_map(), a_map(d=16), a_map(dtype=torch.float16), a_map(rows=7)):
            attend(*inputs)
    sizes = [shape[2] for name, shape in log if name == 'triton']
    tried = [size for size in sizes if size == 77]  # the small map
    assert len(tried) == 3 and len(sizes) == 3 + 5
    assert {name for name, _ in log} == {'triton'}


@pytest.mark.parametrize(('fault', 'says'), FAULTS)
def test_first_use_goes_round_a_fault(calls, fault, says):
    log = calls(decomposed, fault)
    inputs = a_map()
    with pytest.warns(UserWarning) as said:
        outputs = [attend(*inputs) for _ in range(3)]
    assert len(said) == 1
    text = str(said[0].message)
    assert says in text and '\n' not in text
    for part in ('decomposed attention, float32, widths (8, 8)', torch.__version__, 'Triton 3.'):
        assert part in text
    assert 'check_env.py --report' in text
    expected = decomposed.BACKENDS['reference'](*(x.double() for x in inputs))
    for out in outputs:
        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    assert [name for name, shape in log if shape[2] == 20][:3] == ['reference'] * 3


@pytest.mark.parametrize(('fault', 'says'), FAULTS)
def test_first_use_in_a_window(calls, fault, says):
    log = calls(neighborhood, fault)
    with pytest.warns(UserWarning, match='neighborhood attention, float32') as said:
        attend_neighborhood(*a_window())
    assert len(said) == 1 and says in str(said[0].message)
    assert log[-1][0] == 'shifted'


def test_first_use_in_a_window_that_agrees(calls):
    log = calls(neighborhood)
    torch.manual_seed(0)
    v, weights = a_window()
    attend_neighborhood(v, weights, torch.randn(4, 3, 3), torch.randn(4, 3, 3))
    attend_neighborhood(v.half(), weights.half())
    assert {name for name, _ in log} == {'triton'} and len(first_use._PASSED) == 2
    assert all(first_use._PASSED.values())


def test_a_backend_that_is_asked_for_is_not_tried(calls):
    calls(decomposed, raise_no_compiler)
    with pytest.raises(RuntimeError, match='Failed to find C compiler'):
        attend(*a_map(), backend='triton')
    assert not first_use._PASSED


def test_first_use_sees_nothing_of_its_caller(calls):
    """Autocast, inference mode, a mode of the caller's, and a tracer."""
    calls(decomposed)
    q, *others = a_map()
    with torch.autocast('cpu', torch.bfloat16), torch.inference_mode():
        attend(q, *others)
    assert list(first_use._PASSED.values()) == [True]
    first_use._PASSED.clear()
    traced = torch.jit.trace(lambda q: attend(q, *others), q, check_trace=False)
    assert list(first_use._PASSED.values()) == [True]
    torch.testing.assert_close(traced(q), attend(q, *others))
    assert str(traced.graph).count('attend_triton') == 1
    first_use._PASSED.clear()
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = attend(*(mode.from_tensor(x) for x in (q, *others)))
    assert out.shape == q.shape and list(first_use._PASSED.values()) == [True]


@pytest.mark.parametrize('fault', [None, raise_no_compiler])
def test_compilers_take_what_first_use_has_found(calls, fault):
    calls(decomposed, fault or (lambda out: out))
    inputs = [x.requires_grad_() for x in a_map()]
    compiled = torch.compile(attend, backend='aot_eager', fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore' if fault else 'error', UserWarning)
        out = compiled(*inputs)
    grads = torch.autograd.grad(out.sum(), inputs)
    expected = decomposed.BACKENDS['reference'](*inputs)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(grads, torch.autograd.grad(expected.sum(), inputs))
    assert list(first_use._PASSED.values()) == [not fault]
    torch._dynamo.reset()


def test_compilers_do_not_compile_for_each_size():
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(attend, backend=counter, fullgraph=True, dynamic=True)
    for rows in (5, 6, 7):
        compiled(*a_map(rows=rows))
    assert counter.frame_count == 1 and len(first_use._PASSED) == 1
    torch._dynamo.reset()


def test_within_a_backward_pass_nothing_is_tried(calls):
    """As when activations are computed again: waiting there for gradients could be forever."""
    calls(decomposed)
    found = []

    def recompute(grad):
        attend(*a_map())
        found.append(dict(first_use._PASSED))
        return grad

    with_gradient(recompute)(torch.ones(1, requires_grad=True)).backward()
    assert found == [{}]
    attend(*a_map())
    assert len(first_use._PASSED) == 1


def test_a_rank_says_which_it_is(calls, monkeypatch):
    calls(decomposed, raise_no_compiler)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_rank', lambda: 3)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 8)
    with pytest.warns(UserWarning, match=r'rank 3 of 8 \(others may use it\)'):
        attend(*a_map())


def test_a_full_gpu_is_no_fault_of_the_kernels(calls):
    def fill(out):
        raise torch.OutOfMemoryError('CUDA out of memory')

    calls(decomposed, fill)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(torch.OutOfMemoryError):
            attend(*a_map())
    assert not first_use._PASSED  # once there is memory, they are tried


def test_threads_try_once(calls):
    log = calls(decomposed, raise_no_compiler)
    threads = 4
    together = threading.Barrier(threads)

    def work(inputs):
        together.wait()
        return attend(*inputs)

    with pytest.warns(UserWarning) as said, ThreadPoolExecutor(threads) as executor:
        list(executor.map(work, [a_map()] * threads))
    assert len(said) == 1 and [name for name, _ in log].count('triton') == 1


def test_without_a_definition_nothing_is_compared(calls, monkeypatch):
    """As where deterministic algorithms are asked for, and a product has none."""

    def refuse(*inputs):
        raise RuntimeError('Deterministic behavior was enabled')

    log = calls(decomposed)
    operation = self_test.OPERATIONS['decomposed']._replace(definition=refuse)
    monkeypatch.setitem(self_test.OPERATIONS, 'decomposed', operation)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        attend(*a_map())
    assert [name for name, _ in log] == ['triton']


def test_deterministic_algorithms_are_no_fault(calls):
    calls(decomposed), calls(neighborhood)
    torch.use_deterministic_algorithms(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            attend(*a_map())
            attend_neighborhood(*a_window())
    finally:
        torch.use_deterministic_algorithms(False)
    assert list(first_use._PASSED.values()) == [True, True]


def test_other_products_are_tried_anew(calls, monkeypatch):
    calls(decomposed)
    for rounded in (False, True):
        monkeypatch.setattr(first_use, 'allows_tf32', lambda rounded=rounded: rounded)
        attend(*a_map())
    assert len(first_use._PASSED) == 2


GPU = torch.device('cuda', 1)
TRIAL = ('decomposed', GPU, (torch.float16,) * 5, (16, 32))


def test_a_gpu_that_takes_nothing_more_ends_with_a_sentence(monkeypatch):
    """After a kernel has left its memory, no backend works in this process."""
    gpu = SimpleNamespace(name='GPU', major=9, minor=0)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: gpu)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda device: None)
    with pytest.warns(UserWarning, match='GPU, compute capability 9.0.*takes another backend'):
        first_use._say('raised an error', *TRIAL)

    def fail(device):
        raise RuntimeError('CUDA error: an illegal memory access was encountered')

    monkeypatch.setattr(torch.cuda, 'synchronize', fail)
    for operation, other in (('decomposed', 'chunked'), ('neighborhood', 'shifted')):
        with pytest.raises(RuntimeError, match=f"start it again with backend='{other}'") as raised:
            first_use._say('raised an error', operation, *TRIAL[1:])
        assert '\n' not in str(raised.value)


def test_the_gpu_of_the_inputs_is_the_one_of_the_thread(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    monkeypatch.setattr(torch.cuda, 'set_device', chosen.append)
    monkeypatch.setattr(self_test, 'small_map', lambda *trial: ([], ()))
    monkeypatch.setattr(self_test, 'errors_of_triton', lambda *trial: (0.0, 0.0))
    assert first_use.passes(*TRIAL, size=(5, 4)) and chosen == [GPU]


@pytest.mark.parametrize('dtype', support.TRITON_DTYPES)
@pytest.mark.parametrize('widths', [(1, 1), (128, 128)])
def test_rounding_is_no_fault_at_any_width(dtype, widths):
    trial = self_test.small_map('decomposed', torch.device('cpu'), (dtype,) * 5, widths, (0, 0))
    errors = self_test.errors_of_triton('decomposed', *trial)
    assert max(errors) <= 0.75 * self_test.allowed(dtype), errors
