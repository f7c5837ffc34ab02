"""Less memory for training: what is cheap to compute again is not kept for the backward pass."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .norm import is_intercepted


def checkpointed(
    function: Callable[..., Tensor], *inputs: Tensor, modules: Sequence[nn.Module]
) -> Tensor:
    """``function(*inputs)`` that keeps its inputs only: the backward pass calls it again.

    Where a second call could be noticed, or nothing is kept anyway, it is a plain call.

    Args:
        function (Callable): What is called.
        *inputs (Tensor): Its inputs.
        modules (Sequence[nn.Module]): What it calls.

    Returns:
        Tensor: Its output.
    """
    if not _keeps_tensors() or not all(map(can_repeat, modules)):
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def can_repeat(module: nn.Module) -> bool:
    """Whether a second call goes unnoticed: no hooks, no statistics of the batch, no dropout."""
    return not any(
        is_intercepted(part)
        or (part.training and isinstance(part, (_BatchNorm, nn.modules.dropout._DropoutNd)))
        for part in module.modules()
    )


def recomputed(
    tensors: Sequence[Tensor], compute: Callable[[], Sequence[Tensor]]
) -> AbstractContextManager[None]:
    """A context in which the backward pass computes some tensors again instead of keeping them.

    Operators that save these very tensors for their backward pass get what ``compute`` returns
    then; all others are kept as usual. An operator that saves copies of them is told from those
    that need none by the shape: there is a warning, once.

    Args:
        tensors (Sequence[Tensor]): Tensors that are not to be kept.
        compute (Callable): Returns the same again, whatever autocast says; without gradients.
    """
    if not _keeps_tensors() or _is_packed():
        return nullcontext()
    return _recomputed(tensors, compute)


@contextmanager
def _recomputed(
    tensors: Sequence[Tensor], compute: Callable[[], Sequence[Tensor]]
) -> Iterator[None]:
    indices = {id(x): index for index, x in enumerate(tensors)}
    shapes = [(x.shape, x.dtype) for x in tensors]
    saved, others = set(), set()
    again: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor | int:
        index = indices.get(id(x))
        if index is None:
            others.add((x.shape, x.dtype))
            return x
        saved.add(index)
        return index

    def unpack(packed: Tensor | int) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        if packed not in again:
            with torch.no_grad():
                again.update(enumerate(compute()))
        return again.pop(packed)

    with saved_tensors_hooks(pack, unpack):
        yield
    if any(index not in saved and shape in others for index, shape in enumerate(shapes)):
        _warn_once('an attention backend saves copies of its inputs for the backward pass')


def _is_packed() -> bool:
    """Whether what is saved is packed already, by a checkpoint around for example."""
    innermost_hooks = getattr(torch._C._autograd, '_top_saved_tensors_default_hooks', None)
    if innermost_hooks is None:
        _warn_once('this PyTorch does not tell whether hooks pack what is saved')
        return True
    return innermost_hooks(True) is not None


@cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f'{reason}: nothing of it is computed again instead of kept. A training takes more '
        'memory, its results are the same.',
        stacklevel=2,
    )


def _keeps_tensors() -> bool:
    """Whether autograd keeps tensors, and hooks may change that."""
    if not torch.is_grad_enabled() or _is_recorded():
        return False
    return torch._C._autograd._saved_tensors_hooks_is_enabled()  # torch.func forbids hooks


def _is_recorded() -> bool:
    """Whether what is computed is written down: compilers decide themselves what they keep."""
    compiling = hasattr(torch, 'compiler') and torch.compiler.is_compiling()
    return compiling or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
