"""What the terms of an operator weigh: how much a place says itself, how much the others say.

The unary share of self-attention is the softmax weight that a place gives itself. Of LESA,
``local + omega * context``, it is 1 / (1 + omega). The binary share is the rest.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from statistics import fmean

import torch
from torch import Tensor, nn

from ..models.layers import LESA, Operator, SelfAttention
from ..models.layers.context import ContextTerm
from ..utils.errors import UserValueError
from .operators import operators


class TermWeights:
    """Measures the unary shares of a model's operators in the images that it runs meanwhile.

    Nothing is computed otherwise, and no similarity matrix is built: the weights that places give
    themselves come from a block of queries at a time.

    Args:
        model (nn.Module): Detector, classifier or backbone whose operators are LESA or
            SelfAttention.

    Raises:
        ValueError: If it has no operator, or another one.

    Example:
        >>> with TermWeights(model) as weights:
        ...     model.test_step(batch)
        >>> weights.unary()
        {'layer3.1': 0.671, ...}
    """

    def __init__(self, model: nn.Module) -> None:
        self._operators = operators(model)
        for name, operator in self._operators.items():
            if not isinstance(operator, (LESA, SelfAttention)):
                raise UserValueError(
                    f'{name} is {type(operator).__name__}, but the terms weigh something in LESA '
                    'and SelfAttention only'
                )
        self._shares = {name: [] for name in self._operators}
        self._handles = []

    def __enter__(self) -> 'TermWeights':
        """Begin to watch.

        Raises:
            ValueError: If the model is in training mode: looking twice at a batch would count it
                twice in the statistics of the norms.
        """
        training = [name for name, operator in self._operators.items() if operator.training]
        if training:
            raise UserValueError(
                f'{", ".join(training)}: in training mode, not in evaluation mode: model.eval()'
            )
        for name, operator in self._operators.items():
            see = partial(self._see, self._shares[name])
            if isinstance(operator, SelfAttention):
                handle = operator.context.register_forward_pre_hook(partial(see, _of_attention))
            elif operator.fusion is None:
                handle = operator.register_forward_hook(partial(see, _of_static_fusion))
            else:
                handle = operator.fusion.register_forward_hook(partial(see, _of_fusion))
            self._handles.append(handle)
        return self

    def __exit__(self, *_) -> None:
        """Watch no more; what was measured stays."""
        while self._handles:
            self._handles.pop().remove()

    @staticmethod
    @torch.no_grad()
    def _see(shares: list[Tensor], share, *seen) -> None:
        shares.append(share(*seen).flatten(1).mean(1))

    def unary(self) -> dict[str, float]:
        """Unary share of every layer in [0, 1]: mean over images, of each over all its places.

        SelfAttention: over heads, too; LESA: over channels, too.

        Raises:
            ValueError: If no image was seen.
        """
        if not all(self._shares.values()):
            raise UserValueError('no image was run, so that nothing was measured')
        return {name: torch.cat(shares).mean().item() for name, shares in self._shares.items()}


def _of_attention(context: ContextTerm, inputs: tuple) -> Tensor:
    """Unary share (B, heads, H * W)."""
    return context.unary_weights(context.factors(*inputs)).float()


def _of_fusion(fusion: nn.Module, inputs: tuple, omega: Tensor) -> Tensor:
    """Unary share (B, C, H, W)."""
    return 1 / (1 + omega.float())


def _of_static_fusion(operator: Operator, inputs: tuple, out: Tensor) -> Tensor:
    """Unary share (B, 1) of an omega of 1."""
    return torch.full((len(out), 1), 0.5)


def with_mean(unary: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Unary and binary share of every layer, and behind the layers their ``'mean'``."""
    unary = {**unary, 'mean': fmean(unary.values())}
    return {name: dict(unary=share, binary=1 - share) for name, share in unary.items()}


@contextmanager
def ablated(model: nn.Module) -> Iterator[None]:
    """Meanwhile no place of any context term attends to itself (paper, Table 1).

    Raises:
        ValueError: If the model has no context term.
    """
    contexts = [module for module in model.modules() if isinstance(module, ContextTerm)]
    if not contexts:
        raise UserValueError(f'{type(model).__name__} has no context term whose diagonal could go')
    before = [context.ablate_unary for context in contexts]
    for context in contexts:
        context.ablate_unary = True
    try:
        yield
    finally:
        for context, ablate in zip(contexts, before, strict=True):
            context.ablate_unary = ablate
