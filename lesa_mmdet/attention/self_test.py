"""Compares every backend that a machine can run with the definition, forward and backward.

What somebody with a device that we do not have runs first: ``tools/check_env.py --self-test``.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .decomposed import attend as decomposed
from .decomposed.reference import attend_reference
from .neighborhood import attend as neighborhood
from .neighborhood.reference import attend_neighborhood_reference
from .support import DTYPES, INTERPRETED, TRITON_DTYPES, allows_tf32

# Largest error relative to the largest number of each result, or to 1. A 16-bit type rounds the
# results, and on a GPU the weights, too.
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
REPEATS = 3
# No multiple of a block; several blocks where kernels are compiled, few where they are interpreted.
MAP, INTERPRETED_MAP = (31, 33), (7, 11)


class Result(NamedTuple):
    """How a backend did on tensors of one type.

    Attributes:
        operation (str): 'decomposed' or 'neighborhood'.
        backend (str): Its name; 'triton (interpreted)' where no kernel is compiled.
        dtype (torch.dtype): Type of all inputs.
        forward (float): Error of the output, relative to its largest number or 1.
        backward (float): The largest such error of the gradients.
        seconds (float): Of the fastest forward and backward pass.
        mib (float, optional): Peak memory above the inputs, where the system tells it.
        failure (str): First line of the error if the backend failed; then there are no figures.
    """

    operation: str
    backend: str
    dtype: torch.dtype
    forward: float = float('nan')
    backward: float = float('nan')
    seconds: float = float('nan')
    mib: float | None = None
    failure: str = ''

    @property
    def allowed(self) -> float:
        """Largest error that rounding explains."""
        return allowed(self.dtype)

    @property
    def passed(self) -> bool:
        """Whether output and gradients are those of the definition."""
        return not self.failure and self.forward <= self.allowed and self.backward <= self.allowed

    def __str__(self) -> str:
        name = f'{self.operation:<13}{self.backend:<21}{str(self.dtype).removeprefix("torch."):<9}'
        if self.failure:
            return f'{name} FAILED: {self.failure}'
        memory = '' if self.mib is None else f'{self.mib:6.0f} MiB'
        return (
            f'{name} {self.forward:8.1e} {self.backward:8.1e} {self.allowed:8.0e} '
            f'{self.seconds:8.4f} s {memory:>10}  {"ok" if self.passed else "WRONG"}'
        )


def allowed(dtype: torch.dtype) -> float:
    """Largest error that rounding explains: TF32 has the digits of float16."""
    coarse = dtype == torch.float32 and allows_tf32()
    return TOLERANCES[torch.float16 if coarse else dtype]


HEADER = (
    f'{"operation":<13}{"backend":<21}{"type":<9}  forward backward  allowed       time     memory'
)


class _Operation(NamedTuple):
    """An operation that has backends: their names, entrance, definition, and random inputs."""

    backends: Callable
    attend: Callable
    definition: Callable
    shapes: Callable


def _decomposed_shapes(rows: int, cols: int, d: int = 16, dv: int = 32) -> list[tuple[int, ...]]:
    """Of q, k, v, row and col."""
    return [(1, 2, rows * cols, channels) for channels in (d, d, dv, rows, cols)]


def _neighborhood_shapes(
    rows: int, cols: int, d: int = 16, size: int = 5, mul: bool = True, add: bool = True
) -> list[tuple[int, ...] | None]:
    """Of v, weights, mul and add; None for one that is not given."""
    channels, heads = 2 * d, 2
    matrices = [(channels, size, size) if given else None for given in (mul, add)]
    return [(1, channels, rows, cols), (1, heads, size**2, rows, cols), *matrices]


OPERATIONS = {
    'decomposed': _Operation(
        decomposed.available_backends, decomposed.attend, attend_reference, _decomposed_shapes
    ),
    'neighborhood': _Operation(
        neighborhood.available_neighborhood_backends,
        neighborhood.attend_neighborhood,
        partial(attend_neighborhood_reference, dilation=1),
        _neighborhood_shapes,
    ),
}


def run(device: torch.device) -> Iterator[Result]:
    """Results of all backends for tensors of a device, each type that they take, one by one."""
    for name, operation in OPERATIONS.items():
        for backend in operation.backends(device):
            interpreted = backend == 'triton' and INTERPRETED
            inputs = _random(device, *operation.shapes(*(INTERPRETED_MAP if interpreted else MAP)))
            shown = f'{backend} (interpreted)' if interpreted else backend
            attend = partial(operation.attend, backend=backend)
            for dtype in TRITON_DTYPES if backend == 'triton' else DTYPES:
                rounded = [x.to(dtype) for x in inputs]
                result = Result(name, shown, dtype)
                try:
                    result = result._replace(**_compare(attend, operation.definition, rounded))
                except Exception as error:  # whatever it is: the others are to be tested, too
                    failure = f'{type(error).__name__}: {error}'.splitlines()[0]
                    result = result._replace(failure=failure)
                yield result


def small_map(
    name: str, device: torch.device, dtypes: tuple[torch.dtype, ...], widths: tuple, rest: tuple
) -> tuple[list[Any], tuple[Tensor, ...]]:
    """Random inputs of an operation on a small map.

    Args:
        name (str): One of ``OPERATIONS``.
        device (torch.device): Where.
        dtypes (tuple[torch.dtype, ...]): Of all inputs.
        widths (tuple): What the operation's shapes take after rows and columns.
        rest (tuple[int, int]): Rows and columns of the map that is to come, modulo 16: kernels are
            compiled for these, so that this map shares them.

    Returns:
        tuple: The inputs, and what the definition makes of them in float64: output and gradients.
    """
    operation = OPERATIONS[name]
    size = INTERPRETED_MAP if INTERPRETED else [16 + places for places in rest]
    inputs = _random(device, *operation.shapes(*size, *widths))
    if name == 'decomposed':
        inputs[0] *= (16 / widths[0]) ** 0.5  # logits as large as those of 16 channels
        inputs[:3] = [x.mT.contiguous().mT for x in inputs[:3]]  # channel by channel, as in layers
    inputs = [x if x is None else x.to(dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
    return inputs, _exact(operation.definition, inputs)


def errors_of_triton(
    name: str, inputs: list[Any], exact: tuple[Tensor, ...]
) -> tuple[float, float]:
    """Errors of Triton's kernels on what :func:`small_map` returns.

    Returns:
        tuple[float, float]: The error of the output, and the largest of a gradient.
    """
    attend = partial(OPERATIONS[name].attend, backend='triton')
    return _errors(_differentiate(attend, inputs), exact, inputs)


def _random(device: torch.device, *shapes: tuple[int, ...] | None) -> list[Any]:
    generator = torch.Generator().manual_seed(0)  # of the CPU: the same numbers everywhere
    return [
        None if shape is None else torch.randn(shape, generator=generator).to(device)
        for shape in shapes
    ]


def _compare(attend: Callable, definition: Callable, inputs: list[Any]) -> dict[str, Any]:
    """Errors of a function of tensors to its definition in float64, seconds and memory."""
    before = _start_memory(inputs[0].device)
    results = _differentiate(attend, inputs)
    mib = _peak_memory(inputs[0].device, before)
    forward, backward = _errors(results, _exact(definition, inputs), inputs)
    times = [_seconds(attend, inputs) for _ in range(REPEATS)]
    return dict(forward=forward, backward=backward, seconds=min(times), mib=mib)


def _exact(definition: Callable, inputs: list[Any]) -> tuple[Tensor, ...]:
    """Output and gradients of the definition in float64."""
    return _differentiate(definition, [x if x is None else x.double() for x in inputs])


def _errors(
    results: tuple[Tensor, ...], exact: tuple[Tensor, ...], inputs: list[Any]
) -> tuple[float, float]:
    """Errors of an output and, the largest, of its gradients; NaN if there is one."""
    given = [x for x in inputs if x is not None]
    for result, x in zip(results, (inputs[0], *given), strict=True):
        if result.dtype != x.dtype:
            raise TypeError(f'returned {result.dtype} for {x.dtype}')
    forward, *backward = map(_error, results, exact)
    return forward.item(), torch.stack(backward).max().item()  # max() of Python drops NaN


def _differentiate(attend: Callable, inputs: list[Any]) -> tuple[Tensor, ...]:
    """Output and gradients for a fixed random gradient of the output."""
    inputs = [x if x is None else x.detach().requires_grad_() for x in inputs]
    out = attend(*inputs)
    (grad_out,) = _random(out.device, out.shape)
    given = [x for x in inputs if x is not None]
    return out.detach(), *torch.autograd.grad(out, given, grad_out.to(out.dtype))


def _error(result: Tensor, exact: Tensor) -> Tensor:
    return (result.double() - exact).abs().max() / exact.abs().max().clamp(min=1)


def _seconds(attend: Callable, inputs: list[Any]) -> float:
    _synchronize(inputs[0].device)
    start = time.perf_counter()
    _differentiate(attend, inputs)
    _synchronize(inputs[0].device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _start_memory(device: torch.device) -> int | None:
    """Bytes in use, from which on the peak is measured; None where no system tells it."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what earlier steps took
        Path('/proc/self/clear_refs').write_bytes(b'5')  # Linux: the peak starts from now
        return _status('VmRSS')
    except (AttributeError, IndexError, OSError, TypeError):
        return None


def _peak_memory(device: torch.device, before: int | None) -> float | None:
    """MiB that were taken meanwhile at most."""
    if before is None:
        return None
    cuda = device.type == 'cuda'
    peak = torch.cuda.max_memory_allocated(device) if cuda else _status('VmHWM')
    return (peak - before) / 2**20


def _status(name: str) -> int:
    """A number of bytes that Linux tells of this process."""
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    return int(status.split(f'\n{name}:')[1].split()[0]) * 1024  # of kB
