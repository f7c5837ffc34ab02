"""What each attention backend can take, stated once: who chooses and who refuses both ask here.

Most functions return what is in a backend's way, in words that follow "attention backend 'NAME' ",
or None if nothing is. They hold for every operation.
"""

import importlib.util
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import RefusedMemoryError, RefusedValueError

# What any backend computes in.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

HAS_TRITON = importlib.util.find_spec('triton') is not None
# Whether Triton runs its interpreter rather than compile for a GPU. It reads this when imported.
INTERPRETED = os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'yes', 'on', 'y')
OLDEST_TRITON = (3, 4)  # earlier ones do not compile the kernels
OLDEST_GPU = (8, 0)  # compute capability: matrix units for bfloat16, asynchronous copies
TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
TRITON_CHANNELS = 128  # of a head: what the registers of a program hold
TRITON_OFFSETS = 2**31  # elements of one head, counted in int32
TRITON_GRID = 65535  # blocks that CUDA launches along the axes of heads and batch

HAS_SYSCONF = hasattr(os, 'sysconf')  # not on Windows
HOST_MEMORY = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') if HAS_SYSCONF else math.inf


def check_backend(name: str, known: Iterable[str]) -> None:
    """Refuse a name that is no backend's on any machine.

    Args:
        name (str): 'auto', 'triton', or one of the backends that every device has.
        known (Iterable[str]): The names of those.

    Raises:
        ValueError: If it is another.
    """
    names = ('auto', *known, 'triton')
    if name not in names:
        raise RefusedValueError(
            f'attention backend {name!r} is unknown; available: {", ".join(names)}'
        )


def select(
    name: str,
    backends: Mapping[str, Callable[..., Tensor]],
    triton: Callable[..., Tensor],
    inputs: tuple[Any, ...],
    refusal: Callable[..., str | None],
    fallback: Callable[..., str],
    first_use: Callable[..., bool],
) -> Callable[..., Tensor]:
    """The backend that computes an operation.

    Args:
        name (str): Its name, or 'auto': by device and size.
        backends (Mapping[str, Callable]): The operation's of every device, by name.
        triton (Callable): Its backend 'triton'.
        inputs (tuple): What the backend will take, a tensor first.
        refusal (Callable): Takes a name and the inputs; returns what keeps that backend from them.
        fallback (Callable): Takes the inputs; returns the name that 'auto' stands for where
            Triton cannot be had.
        first_use (Callable): Takes the inputs; returns whether Triton computes what it should,
            tested before 'auto' takes it for the first time (:mod:`.first_use`).

    Raises:
        ValueError: If there is no such backend, or it cannot take the inputs.
        MemoryError: If the backend 'reference' needs more memory than the device has.
    """
    device = inputs[0].device
    if name == 'auto':
        if torch.onnx.is_in_onnx_export():
            name = 'reference'  # the only one made of ONNX's own operators
        elif prefers_triton(device) and not refusal('triton', *inputs) and first_use(*inputs):
            name = 'triton'
        else:
            name = fallback(*inputs)
    known = {**backends, 'triton': triton}
    problem = refusal(name, *inputs) if name in known else 'is unknown'
    if problem:
        names = ('auto', *available(backends, triton, device))
        others = [other for other in names if other != name]
        error = RefusedMemoryError if name == 'reference' else RefusedValueError
        raise error(f'attention backend {name!r} {problem}; available: {", ".join(others)}')
    return known[name]


def prefers_triton(device: torch.device) -> bool:
    """Whether 'auto' takes Triton on a device, if it can: the interpreter is for tests."""
    return device.type == 'cuda'


def available(
    backends: Mapping[str, Callable[..., Tensor]],
    triton: Callable[..., Tensor],
    device: torch.device,
) -> dict[str, Callable[..., Tensor]]:
    """The backends of an operation that can take tensors on a device, by name."""
    return {**backends} if triton_lacks(device) else {**backends, 'triton': triton}


def triton_lacks(device: torch.device) -> str | None:
    """What a machine lacks to run Triton's kernels on tensors of a device."""
    if not HAS_TRITON:
        return 'needs the package triton'
    if INTERPRETED:
        return None
    if device.type != 'cuda' or torch.version.hip:
        return f'needs tensors on an NVIDIA GPU, got {device}'
    gpu = torch.cuda.get_device_properties(device)
    if (gpu.major, gpu.minor) < OLDEST_GPU:
        return (
            f'needs a GPU of compute capability {_dotted(OLDEST_GPU)} or newer, '
            f'got {gpu.name} of {gpu.major}.{gpu.minor}'
        )
    try:
        import triton  # only now: most machines have none
    except Exception:  # broken, which its first use says
        return None
    version = tuple(int(number) for number in triton.__version__.split('.')[:2])
    if version < OLDEST_TRITON:
        return f'needs Triton {_dotted(OLDEST_TRITON)} or newer, got {triton.__version__}'
    return None


def triton_refuses(*tensors: Tensor, channels: int) -> str | None:
    """What keeps Triton's kernels from an operation.

    Args:
        *tensors (Tensor): What the kernels read, each (B, heads, ...) on one device.
        channels (int): Of the widest head.
    """
    lacks = triton_lacks(tensors[0].device)
    if lacks:
        return lacks
    for x in tensors:
        if x.dtype not in TRITON_DTYPES:
            return f'takes {names_of(TRITON_DTYPES)}, got {x.dtype}'
    if channels > TRITON_CHANNELS:
        return f'takes up to {TRITON_CHANNELS} channels a head, got {channels}'
    batch, heads = tensors[0].shape[:2]
    if max(batch, heads) > TRITON_GRID:
        return f'takes up to {TRITON_GRID} heads and images, got {heads} and {batch}'
    elements = max(map(_elements_of_a_head, tensors))
    if elements >= TRITON_OFFSETS:
        return f'takes fewer than 2^31 elements a head, got {elements}'
    return None


def allows_tf32() -> bool:
    """Whether the user lets matrix units round float32."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):  # PyTorch 2.9: the older attribute may raise from then on
        return matmul.fp32_precision == 'tf32'
    return matmul.allow_tf32


def dense_refuses(x: Tensor, pairs: int, what: str) -> str | None:
    """What keeps a backend from building one number for each of so many pairs, named ``what``."""
    # A softmax or product takes its input and its output, in float32 or wider.
    needed = 2 * pairs * max(4, x.element_size())
    there = HOST_MEMORY
    if x.device.type == 'cuda':
        there = torch.cuda.get_device_properties(x.device).total_memory
    if needed <= there:
        return None
    return (
        f'needs {needed / 2**30:.1f} GiB for {what}, '
        f'more than the {there / 2**30:.1f} GiB of {x.device.type}'
    )


def names_of(dtypes: tuple[torch.dtype, ...]) -> str:
    """Dtypes as a sentence lists them."""
    *names, last = (str(dtype).removeprefix('torch.') for dtype in dtypes)
    return f'{", ".join(names)} or {last}'


def _elements_of_a_head(x: Tensor) -> int:
    """From the first to the last element of a head, as it lies and if it is copied."""
    sizes, strides = x.shape[2:], x.stride()[2:]
    as_it_lies = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return max(math.prod(sizes), as_it_lies)


def _dotted(version: tuple[int, int]) -> str:
    return '.'.join(map(str, version))
