"""Less memory for training: what is cheap to compute again is not kept for the backward pass."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .norm import is_intercepted

# Those of whoever is around, such as another checkpoint; private, so it may be missing.
_outer_hooks = getattr(torch._C._autograd, '_top_saved_tensors_default_hooks', None)


def call_again(
    function: Callable[..., Tensor], *inputs: Tensor, modules: Sequence[nn.Module]
) -> Tensor:
    """``function(*inputs)``, keeping only the inputs: the backward pass calls the function again.

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


def not_kept(
    tensors: Sequence[Tensor], compute: Callable[[], Sequence[Tensor]]
) -> AbstractContextManager:
    """A context in which the backward pass computes some tensors again instead of keeping them.

    Operators inside it that want these very tensors for their backward pass get what ``compute``
    returns then; all others are kept as usual.

    Args:
        tensors (Sequence[Tensor]): Tensors that are not to be kept.
        compute (Callable): Returns the same again, whatever autocast says; without gradients.

    Returns:
        AbstractContextManager: The context.
    """
    # Whoever packs what is saved already, such as a checkpoint around, goes on doing so.
    if not _keeps_tensors() or _outer_hooks is None or _outer_hooks(True) is not None:
        return nullcontext()
    tensors = {id(x): index for index, x in enumerate(tensors)}
    again: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Any:
        return tensors.get(id(x), x)

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        if packed not in again:
            with torch.no_grad():
                again.update(enumerate(compute()))
        return again.pop(packed)

    return saved_tensors_hooks(pack, unpack)


def _keeps_tensors() -> bool:
    """Whether autograd keeps tensors, and hooks may change that."""
    if not torch.is_grad_enabled() or _is_recorded():
        return False
    return torch._C._autograd._saved_tensors_hooks_is_enabled()  # torch.func forbids hooks


def _is_recorded() -> bool:
    """Whether what is computed is written down: compilers decide themselves what they keep."""
    compiling = hasattr(torch, 'compiler') and torch.compiler.is_compiling()
    return compiling or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
