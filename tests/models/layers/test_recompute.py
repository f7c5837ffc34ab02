"""What is computed again instead of kept: the same gradients in every bit, and less memory."""

import gc

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from lesa_mmdet.attention import BACKENDS
from lesa_mmdet.attention.support import HAS_TRITON, INTERPRETED
from lesa_mmdet.models.layers import LESA, SelfAttention, recompute
from lesa_mmdet.models.layers.recompute import can_repeat, checkpointed, recomputed

SIZE, CHANNELS = 20, 32  # more positions than the dense backend takes


@pytest.fixture(params=[LESA, SelfAttention])
def operator(request):
    torch.manual_seed(0)
    operator = request.param(CHANNELS, CHANNELS, feat_size=(SIZE, SIZE), num_heads=4)
    for module in operator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return operator.eval()


def gradients(operator, call=None):
    torch.manual_seed(1)
    x = torch.randn(2, CHANNELS, SIZE, SIZE, requires_grad=True)
    for parameter in operator.parameters():
        parameter.grad = None
    out = (call or operator)(x)
    out.square().sum().backward()
    return out, x.grad, *(parameter.grad for parameter in operator.parameters())


def keep_all(monkeypatch):
    monkeypatch.setattr(recompute, '_keeps_tensors', lambda: False)


@pytest.mark.parametrize('training', [False, True])
def test_gradients_and_statistics_are_the_same_in_every_bit(operator, training, monkeypatch):
    operator.train(training)
    before = {name: x.clone() for name, x in operator.state_dict().items()}
    ours = gradients(operator)
    after = {name: x.clone() for name, x in operator.state_dict().items()}
    operator.load_state_dict(before)
    keep_all(monkeypatch)
    assert all(map(torch.equal, ours, gradients(operator)))
    assert all(torch.equal(x, after[name]) for name, x in operator.state_dict().items())


@pytest.mark.parametrize('reentrant', [False, True])
def test_inside_a_checkpoint(operator, reentrant):
    ours = gradients(operator)
    again = gradients(operator, lambda x: checkpoint(operator, x, use_reentrant=reentrant))
    assert all(map(torch.equal, ours, again))


def test_under_autocast_backward_gets_what_forward_had(operator, monkeypatch):
    def call(x):
        with torch.autocast('cpu', torch.bfloat16):
            return operator(x)

    ours = gradients(operator, call)
    keep_all(monkeypatch)
    assert all(map(torch.equal, ours, gradients(operator, call)))


class Kept(TorchDispatchMode):
    """Storages that operators made and that still live."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                self.storages[storage._cdata] = (
                    torch.multiprocessing.reductions.StorageWeakRef(storage),
                    storage.nbytes(),
                )
        return out

    def maps(self):
        alive = sum(size for ref, size in self.storages.values() if not ref.expired())
        return alive / (2 * CHANNELS * SIZE**2 * 4)


def test_less_is_kept(monkeypatch):
    operator = LESA(CHANNELS, CHANNELS, feat_size=(SIZE, SIZE), num_heads=4).eval()
    x = torch.randn(2, CHANNELS, SIZE, SIZE, requires_grad=True)
    kept = []
    for _ in range(2):
        with Kept() as made:
            out = operator(x)
        kept.append(made.maps())
        del out
        keep_all(monkeypatch)
    # row and col: 2 * heads * SIZE / CHANNELS maps; the fusion's: 3, and the scaled queries.
    assert kept[0] <= kept[1] - 2 * 4 * SIZE / CHANNELS - 3


BACKENDS_HERE = [*BACKENDS, *(['triton'] if HAS_TRITON and INTERPRETED else [])]


@pytest.mark.parametrize('backend', BACKENDS_HERE)
def test_no_backend_keeps_the_logits_of_positions(backend, monkeypatch):
    rows, cols, batch, heads = 6, 5, 2, 2
    operator = SelfAttention(16, 16, feat_size=(rows, cols), num_heads=heads, backend=backend)
    x = torch.randn(batch, 16, rows, cols, requires_grad=True)
    number = batch * heads * rows * cols * 4  # bytes of a number for each query
    sizes = []
    for _ in range(2):
        with Kept() as made:
            out = operator.eval()(x)
        gc.collect()  # what Triton's interpreter leaves
        sizes.append([size for ref, size in made.storages.values() if not ref.expired()])
        out.sum().backward()
        keep_all(monkeypatch)
    of_rows, of_cols = number * rows, number * cols
    assert of_rows not in sizes[0] and of_cols not in sizes[0]
    if backend != 'reference':  # whose sum of both is dense
        assert of_rows in sizes[1] and of_cols in sizes[1]
        assert sum(sizes[0]) <= sum(sizes[1]) - of_rows - of_cols


def test_a_backend_that_saves_copies_is_warned_of_once(monkeypatch):
    chunked = BACKENDS['chunked']
    monkeypatch.setitem(BACKENDS, 'chunked', lambda *inputs: chunked(*(x.clone() for x in inputs)))
    recompute._warn_once.cache_clear()
    operator = SelfAttention(16, 16, feat_size=(6, 5), num_heads=2, backend='chunked')
    x = torch.randn(2, 16, 6, 5, requires_grad=True)
    with pytest.warns(UserWarning, match='saves copies of its inputs .* more memory') as told:
        for _ in range(2):
            operator(x).sum().backward()
    assert len([w for w in told if 'copies' in str(w.message)]) == 1


def test_a_pytorch_that_does_not_tell_hooks_is_warned_of_once(operator, monkeypatch):
    ours = gradients(operator)
    monkeypatch.setattr(recompute, 'checkpoint', lambda function, *inputs, **_: function(*inputs))
    monkeypatch.delattr(torch._C._autograd, '_top_saved_tensors_default_hooks')
    recompute._warn_once.cache_clear()
    with pytest.warns(UserWarning, match='does not tell whether hooks pack') as told:
        kept = [gradients(operator) for _ in range(2)]
    assert len([w for w in told if 'hooks' in str(w.message)]) == 1
    assert all(map(torch.equal, ours, kept[0]))


def test_a_tensor_that_is_not_kept_is_computed_again():
    x = torch.randn(5, requires_grad=True)
    computed = []

    def compute():
        computed.append(True)
        return [x.detach().exp()]

    exponential = x.exp()
    with recomputed([exponential], compute):
        out = exponential.square()
    assert not computed
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert len(computed) == 1
    torch.testing.assert_close(grad, 2 * (2 * x).exp())


def test_hooks_that_pack_what_is_saved_go_on_doing_so():
    packed = []
    x = torch.randn(5, requires_grad=True)
    y = x.exp()
    with saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        with recomputed([y], lambda: 1 / 0):
            out = y.square()
    assert len(packed) == 1
    out.sum().backward()


def test_modules_that_would_notice_are_called_once():
    def hooked():
        module = nn.Conv2d(1, 1, 1)
        module.register_forward_hook(lambda *_: None)
        return module

    for module in (nn.BatchNorm2d(1), nn.Dropout(), hooked()):
        assert not can_repeat(nn.Sequential(module))
    assert can_repeat(nn.Sequential(nn.BatchNorm2d(1), nn.Dropout()).eval())

    calls = []
    norm = nn.BatchNorm2d(1)
    x = torch.randn(2, 1, 3, 3, requires_grad=True)
    checkpointed(lambda x: calls.append(True) or norm(x), x, modules=[norm]).sum().backward()
    assert len(calls) == 1 and norm.num_batches_tracked == 1
    norm.eval()
    checkpointed(lambda x: calls.append(True) or norm(x), x, modules=[norm]).sum().backward()
    assert len(calls) == 3


def test_without_gradients_and_under_transforms(operator):
    operator.context.backend = 'reference'  # the one that torch.func transforms
    parameters = dict(operator.named_parameters())
    x = torch.randn(1, CHANNELS, SIZE, SIZE)

    def loss(parameters):
        return torch.func.functional_call(operator, parameters, (x,)).sum()

    with torch.no_grad():
        out = operator(x)
    torch.testing.assert_close(out.sum(), loss(parameters))
    transformed = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(transformed[name], parameter.grad)
