"""Before 'auto' takes Triton for the first time, its kernels have to agree with the definition.

Nobody has seen every GPU, driver and Triton. No compiler for Triton's launcher, too little shared
memory or a miscompiled kernel is noticed here, on a small map, instead of ending or spoiling a
training.
"""

import platform
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from operator import index

import torch

_PASSED: dict[tuple, bool] = {}


def passes(
    operation: str,
    device: torch.device,
    dtypes: tuple[torch.dtype | None, ...],
    widths: tuple[int, ...],
    size: tuple[int, ...],
) -> bool:
    """Whether Triton's kernels agree with the definition; if not, a warning has said so.

    Asked once in a process for each device, types and widths. Where nothing can be tried (while a
    CUDA graph is captured, or within a backward pass), they are taken as they are.

    Args:
        operation (str): 'decomposed' or 'neighborhood'.
        device (torch.device): Of the inputs.
        dtypes (tuple[torch.dtype | None, ...]): Of all inputs, None for one that is not given.
        widths (tuple[int, ...]): What kernels are compiled for beside types.
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
    key = (operation, device, dtypes, widths)
    if key not in _PASSED:
        if _is_busy(device):
            return True
        # In a thread of its own, which has no autocast, no mode and no tracing of the caller's.
        with ThreadPoolExecutor(1) as executor:
            problem = executor.submit(_problem, *key, rest).result()
        if problem:
            warnings.warn(_report(problem, *key), stacklevel=2)
        _PASSED[key] = not problem
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
    """What is wrong with the kernels; empty if nothing is."""
    from . import self_test  # only now: it imports those that call this

    try:
        errors = self_test.errors_of_triton(operation, device, dtypes, widths, rest)
    except torch.OutOfMemoryError:
        return ''  # of a GPU that is full, what comes next tells more
    except Exception as error:  # whatever it is: other backends can do without Triton
        return f'raised {type(error).__name__}: {str(error).strip()}'.splitlines()[0]
    allowed = max(self_test.allowed(dtype) for dtype in dtypes if dtype)
    for what, error in zip(('an output', 'gradients'), errors, strict=True):
        if not error <= allowed:  # NaN is no agreement
            return f'gave {what} off by {error:.1e}, where rounding explains {allowed:.0e}'
    return ''


def _report(
    problem: str, operation: str, device: torch.device, dtypes: tuple, widths: tuple
) -> str:
    """What was tried where, what went wrong, and what to do."""
    types = '/'.join(dict.fromkeys(str(x).removeprefix('torch.') for x in dtypes if x))
    where = str(device)
    if device.type == 'cuda':
        gpu = torch.cuda.get_device_properties(device)
        where = f'{device} ({gpu.name}, compute capability {gpu.major}.{gpu.minor})'
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        where += (
            f', rank {torch.distributed.get_rank()} of {torch.distributed.get_world_size()} '
            '(others may use it)'
        )
    return (
        f"attention backend 'triton' {problem}: {operation} attention, {types}, widths {widths}, "
        f'on {where}, torch {torch.__version__}, Triton {_version("triton")}, '
        f"Python {platform.python_version()}. 'auto' takes another backend from now on, which is "
        'exact and slower; please report this with what `python tools/check_env.py --report` prints'
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'of unknown version'
