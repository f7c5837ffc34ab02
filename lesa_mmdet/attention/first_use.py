"""Before 'auto' takes Triton for the first time, its kernels have to agree with the definition.

Nobody has seen every GPU, driver and Triton. No compiler for Triton's launcher, too little shared
memory or a miscompiled kernel is noticed here, on a small map, instead of ending or spoiling a
training.
"""

import platform
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from operator import index

import torch

from .support import allows_tf32

_PASSED: dict[tuple, bool] = {}
_ONE_AT_A_TIME = threading.Lock()


def passes(
    operation: str,
    device: torch.device,
    dtypes: tuple[torch.dtype | None, ...],
    widths: tuple[int, ...],
    size: tuple[int, ...],
) -> bool:
    """Whether Triton's kernels agree with the definition; if not, a warning has said so.

    Asked once in a process for each device, types and widths. Where nothing can be tried (while a
    CUDA graph is captured, or within a backward pass), they are taken untried.

    Args:
        operation (str): 'decomposed' or 'neighborhood'.
        device (torch.device): Of the inputs.
        dtypes (tuple[torch.dtype | None, ...]): Of all inputs, None for one that is not given.
        widths (tuple[int, ...]): What kernels are compiled for, apart from types.
        size (tuple[int, ...]): Rows and columns of the map.
    """
    widths = tuple(index(width) for width in widths)  # tracers and compilers pass numbers of theirs
    # A compiler must not compile anew for each size.
    rest = (0, 0) if torch.compiler.is_compiling() else tuple(int(x) % 16 for x in size)
    return _passes(operation, device, dtypes, widths, rest)


@torch.compiler.assume_constant_result  # a compiler calls it, and goes on with what it returns
def _passes(
    operation: str, device: torch.device, dtypes: tuple, widths: tuple, rest: tuple[int, int]
) -> bool:
    trial = (operation, device, dtypes, widths)
    key = (*trial, allows_tf32())  # other products, other kernels
    if key not in _PASSED and _is_busy(device):  # such a thread must not wait for another, either
        return True
    with _ONE_AT_A_TIME:
        if key not in _PASSED:
            try:
                # In a thread of its own, without autocast, modes and tracing of the caller.
                with ThreadPoolExecutor(1) as executor:
                    problem = executor.submit(_problem, *trial, rest).result()
            except torch.OutOfMemoryError:
                return True  # of a GPU that is full, what comes next tells more
            _PASSED[key] = not problem
            if problem:
                _say(problem, *trial)
        return _PASSED[key]


def _is_busy(device: torch.device) -> bool:
    """Whether other work on the device, and waiting for it, is forbidden now.

    A thread that computes gradients within a backward pass would wait for that pass, forever.
    """
    if torch._C._current_graph_task_id() != -1:
        return True
    return device.type == 'cuda' and torch.cuda.is_current_stream_capturing()


def _problem(
    operation: str, device: torch.device, dtypes: tuple, widths: tuple, rest: tuple[int, int]
) -> str:
    """What is wrong with the kernels; empty if nothing is, or if there is nothing to compare with.

    Raises:
        torch.OutOfMemoryError: If the device is full.
    """
    from . import self_test  # only now: it imports those that call this

    if device.type == 'cuda':
        torch.cuda.set_device(device)  # a new thread is at the first GPU
    try:
        inputs, exact = self_test.small_map(operation, device, dtypes, widths, rest)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # such as what deterministic algorithms refuse: no fault of the kernels
        return ''
    try:
        errors = self_test.errors_of_triton(operation, inputs, exact)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is: other backends can do without Triton
        return f'raised {type(error).__name__}: {str(error).strip()}'.splitlines()[0]
    allowed = max(self_test.allowed(dtype) for dtype in dtypes if dtype)
    for what, error in zip(('an output', 'gradients'), errors, strict=True):
        if not error <= allowed:  # NaN is no agreement
            return f'gave {what} off by {error:.1e}, where rounding explains {allowed:.0e}'
    return ''


def _say(problem: str, operation: str, device: torch.device, dtypes: tuple, widths: tuple) -> None:
    """Warn of what was tried where, what went wrong, and what to do.

    Raises:
        RuntimeError: If the GPU takes nothing more of this process, as after an access to memory
            that is not the process's: then no other backend can go on.
    """
    types = '/'.join(dict.fromkeys(str(x).removeprefix('torch.') for x in dtypes if x))
    where, works = str(device), True
    if device.type == 'cuda':
        gpu = torch.cuda.get_device_properties(device)
        where = f'{device} ({gpu.name}, compute capability {gpu.major}.{gpu.minor})'
        works = _works(device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        where += (
            f', rank {torch.distributed.get_rank()} of {torch.distributed.get_world_size()} '
            '(others may use it)'
        )
    found = (
        f"attention backend 'triton' {problem}: {operation} attention, {types}, widths {widths}, "
        f'on {where}, torch {torch.__version__}, Triton {_version("triton")}, '
        f'Python {platform.python_version()}.'
    )
    report = 'please report this with what `python tools/check_env.py --report` prints'
    if not works:
        raise RuntimeError(
            f"{found} This process cannot use the GPU any more: start it again with backend='"
            f"{'chunked' if operation == 'decomposed' else 'shifted'}'; {report}"
        )
    warnings.warn(
        f"{found} 'auto' takes another backend from now on, which is exact and slower; {report}",
        stacklevel=3,
    )


def _works(device: torch.device) -> bool:
    """Whether a GPU still takes work of this process."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'of unknown version'
