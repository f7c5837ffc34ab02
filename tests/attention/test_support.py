"""What each backend can take, asked on machines that are not here."""

import sys
from types import SimpleNamespace

import pytest
import torch

from lesa_mmdet.attention import attend, available_backends, support
from lesa_mmdet.attention.decomposed import attend as entrance
from lesa_mmdet.attention.support import triton_lacks, triton_refuses

CUDA = torch.device('cuda')


@pytest.fixture
def machine(monkeypatch):
    """A machine with a Triton and a GPU of these versions."""
    triton = pytest.importorskip('triton', reason='Triton is not installed')

    def pretend(version='3.7.1', capability=(9, 0), hip=None):
        major, minor = capability
        gpu = SimpleNamespace(name='GPU', major=major, minor=minor, total_memory=2**37)
        monkeypatch.setattr(support, 'INTERPRETED', False)
        monkeypatch.setattr(triton, '__version__', version)
        monkeypatch.setattr(torch.version, 'hip', hip)
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: gpu)

    return pretend


def on_gpu(*shape, dtype=torch.bfloat16):
    """As much of a tensor on a GPU as a choice of backends looks at."""
    x = torch.empty(shape, dtype=dtype, device='meta')
    names = ('shape', 'dtype', 'stride', 'element_size')
    return SimpleNamespace(device=CUDA, **{name: getattr(x, name) for name in names})


def map_on_gpu(height, width, d=16, dv=32, batch=1, heads=8, dtype=torch.bfloat16):
    channels = (d, d, dv, height, width)
    return [on_gpu(batch, heads, height * width, size, dtype=dtype) for size in channels]


def test_what_a_machine_lacks(machine, monkeypatch):
    machine()
    assert triton_lacks(CUDA) is None
    assert set(available_backends(CUDA)) == {'reference', 'chunked', 'triton'}
    assert triton_lacks(torch.device('cpu')) == 'needs tensors on an NVIDIA GPU, got cpu'
    machine(version='3.10.0+git1234')
    assert triton_lacks(CUDA) is None
    machine(version='3.3.1')
    assert triton_lacks(CUDA) == 'needs Triton 3.4 or newer, got 3.3.1'
    machine(capability=(7, 5))
    assert triton_lacks(CUDA) == ('needs a GPU of compute capability 8.0 or newer, got GPU of 7.5')
    assert set(available_backends(CUDA)) == {'reference', 'chunked'}
    machine(hip='6.2')
    assert triton_lacks(CUDA) == 'needs tensors on an NVIDIA GPU, got cuda'
    machine()
    monkeypatch.setattr(support, 'HAS_TRITON', False)
    assert triton_lacks(CUDA) == 'needs the package triton'


def test_a_broken_triton_is_left_to_its_first_use(machine, monkeypatch):
    """Which warns of it, where a refusal would let 'auto' go round it without a word."""
    machine()
    monkeypatch.setitem(sys.modules, 'triton', None)
    assert triton_lacks(CUDA) is None


@pytest.mark.parametrize(
    ('sizes', 'refusal'),
    [
        (dict(dtype=torch.float64), 'takes float16, bfloat16 or float32, got torch.float64'),
        (dict(d=129), 'takes up to 128 channels a head, got 129'),
        (dict(dv=129), 'takes up to 128 channels a head, got 129'),
        (dict(heads=65536), 'takes up to 65535 heads and images, got 65536 and 1'),
        (dict(batch=65536), 'takes up to 65535 heads and images, got 8 and 65536'),
        (dict(height=1291, width=1291), 'takes fewer than 2^31 elements a head, got 2151685171'),
        (dict(height=1, width=46341), 'takes fewer than 2^31 elements a head, got 2147488281'),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_auto_goes_round_what_triton_refuses(machine, monkeypatch, sizes, refusal):
    machine()
    for name in entrance.BACKENDS:
        monkeypatch.setitem(entrance.BACKENDS, name, lambda *x: 'another')
    monkeypatch.setattr(entrance, '_attend_triton', lambda *x: 'triton')
    monkeypatch.setattr(entrance, 'passes', lambda *x: True)  # tests/attention/test_first_use.py
    assert attend(*map_on_gpu(40, 40)) == 'triton'
    inputs = map_on_gpu(**{**dict(height=40, width=40), **sizes})
    assert triton_refuses(*inputs, channels=max(inputs[0].shape[3], inputs[2].shape[3])) == refusal
    assert attend(*inputs) == 'another'
    with pytest.raises(ValueError, match="'triton' .*, got .*; available: auto, reference, chunk"):
        attend(*inputs, backend='triton')


def test_elements_are_counted_as_they_lie(machine):
    machine()
    x = torch.empty(1, 1, 2**20, 2**12, dtype=torch.bfloat16, device='meta')[..., :16]
    far = SimpleNamespace(device=CUDA, shape=x.shape, dtype=x.dtype, stride=x.stride)
    assert triton_refuses(far, channels=16) == (
        f'takes fewer than 2^31 elements a head, got {2**32 - 2**12 + 16}'
    )
