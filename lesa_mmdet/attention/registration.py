"""Registers the two passes of a backend as operators of PyTorch, to be differentiated once.

Autograd, ``torch.func``, compilers, exporters and ``torch.jit`` see one operator for the forward
and one for the backward pass. What such a backend has no derivative for is refused here.

``torch.library.custom_op`` registers less: with PyTorch 2.14, ``torch.func.grad`` of its operators
raises an error, and ``torch.func.jvp`` gives zeros without a word. It would save 0.08 ms of 0.10 ms
a call, and 0.2 to 0.35 ms of 0.73 ms for both passes (on a busy CPU).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library('lesa_mmdet', 'FRAGMENT')


def register_operator(
    backend: str,
    name: str,
    arguments: str,
    *,
    forward: Callable,
    backward: Callable,
    empty_outputs: Callable,
    empty_gradients: Callable,
    saved: int = 0,
) -> Callable[..., Tensor]:
    """Make operators ``lesa_mmdet::{name}`` and ``lesa_mmdet::{name}_backward`` of two functions.

    Neither function may change its arguments, and neither is differentiated itself.

    Args:
        backend (str): Name of the backend, for error messages.
        name (str): Name of the forward operator.
        arguments (str): Its arguments as in a schema of PyTorch, for example
            ``'Tensor v, Tensor? mul, int dilation'``.
        forward (Callable): Takes the arguments; returns the output, or if ``saved`` is not 0 a
            tuple of the output and that many tensors for the backward pass.
        backward (Callable): Takes the output's gradient, the arguments, if ``saved`` is not 0 all
            that the forward pass returned, and a list that tells for each tensor among the
            arguments whether its gradient is needed. Returns a tuple of these gradients; in place
            of one that is not needed any tensor.
        empty_outputs (Callable): As ``forward``, but only shapes, strides and types are right.
        empty_gradients (Callable): As ``backward``, likewise.
        saved (int): Tensors that the forward pass returns after the output.

    Returns:
        Callable: Takes the arguments, returns the output. For the backward pass it saves the very
        tensors that it is given: callers may have them computed again instead, as long as a backend
        hands its inputs on without a copy.
    """
    kinds = [argument.split()[0] for argument in arguments.split(', ')]
    tensors = [index for index, kind in enumerate(kinds) if kind.startswith('Tensor')]
    results = ''.join(f', Tensor saved_{index}' for index in range(1 + saved)) if saved else ''

    def save(ctx: Any, inputs: tuple, output: Any) -> None:
        outputs = output if saved else ()
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.constants = [None if i in tensors else x for i, x in enumerate(inputs)]
        ctx.save_for_backward(*(inputs[index] for index in tensors), *outputs)

    def differentiate(ctx: Any, grad_out: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs, kept = list(ctx.constants), ctx.saved_tensors
        for index, x in zip(tensors, kept, strict=False):
            inputs[index] = x
        needed = [ctx.needs_input_grad[index] for index in tensors]
        computed = run_backward(grad_out, *inputs, *kept[len(tensors) :], needed)
        grads: list[Tensor | None] = [None] * len(inputs)
        for index, grad, need in zip(tensors, computed, needed, strict=True):
            grads[index] = grad if need else None
        return tuple(grads)

    def refuse(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(
            f'attention backend {backend!r} can be differentiated once; '
            "backend 'reference' any number of times"
        )

    run_forward = _operator(
        f'{name}({arguments}) -> ({_tensors(1 + saved)})',
        forward,
        empty_outputs,
        backend,
        setup_context=save,
        backward=differentiate,
    )
    run_backward = _operator(
        f'{name}_backward(Tensor grad_out, {arguments}{results}, bool[] needed)'
        f' -> ({_tensors(len(tensors))})',
        backward,
        empty_gradients,
        backend,
        setup_context=lambda ctx, inputs, output: None,
        backward=refuse,
    )
    return (lambda *inputs: run_forward(*inputs)[0]) if saved else run_forward


def is_transformed() -> bool:
    """Whether ``torch.func`` transforms what is being computed."""
    return torch._C._are_functorch_transforms_active()


def _operator(
    schema: str,
    compute: Callable,
    empty: Callable,
    backend: str,
    setup_context: Callable,
    backward: Callable,
) -> Callable:
    """Define an operator by its schema, and return what calls it."""
    name = schema.partition('(')[0]

    def run_below_autograd(*inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*inputs)

    def refuse_forward_mode(ctx: Any, *_: Tensor) -> None:
        raise NotImplementedError(
            f'attention backend {backend!r} has no derivative in forward mode (torch.func.jvp); '
            "backend 'reference' has"
        )

    def call_for_each(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Any, Any]:
        return _for_each(function.apply, info.batch_size, in_dims, inputs)

    methods = dict(
        forward=run_below_autograd,
        setup_context=setup_context,
        backward=backward,
        jvp=refuse_forward_mode,
        vmap=call_for_each,
    )
    methods = {key: staticmethod(method) for key, method in methods.items()}
    function: Any = type(name, (torch.autograd.Function,), methods)

    _LIBRARY.define(schema)
    _LIBRARY.impl(name, torch.no_grad()(compute), 'CompositeExplicitAutograd')
    _LIBRARY.impl(name, empty, 'Meta')
    _LIBRARY.impl(name, lambda *inputs: function.apply(*inputs), 'Autograd')
    operator = getattr(torch.ops.lesa_mmdet, name)

    def call(*inputs: Any) -> Any:
        # torch.func transforms functions in Python; a graph (traced, compiled) holds operators.
        return function.apply(*inputs) if is_transformed() else operator(*inputs)

    return call


def _for_each(function: Callable, count: int, in_dims: tuple, inputs: tuple) -> tuple[Any, Any]:
    """Call a function for each index of the dimension that ``torch.vmap`` maps over."""

    def select(index: int) -> list:
        return [
            x.select(dim, index) if isinstance(x, Tensor) and dim is not None else x
            for x, dim in zip(inputs, in_dims, strict=True)
        ]

    results = [function(*select(index)) for index in range(count)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])


def _tensors(count: int) -> str:
    return ', '.join(['Tensor'] * count)
