"""What the terms of an operator weigh: how much a position says itself, how much the others say.

The unary share of self-attention is the softmax weight that a position gives itself. Of LESA,
``local + omega * context``, it is 1 / (1 + omega). The binary share is the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..models.layers import Probe
from ..models.layers.context import ContextTerm
from ..utils.errors import UserValueError
from .operators import operators


class TermWeights:
    """Measures the unary shares of a model's operators in the images that it runs meanwhile.

    Nothing is computed otherwise, and no similarity matrix is built: the weights that positions
    give themselves come from a block of queries at a time.

    Args:
        model (nn.Module): Detector, classifier or backbone whose operators have a unary share, as
            LESA and SelfAttention have.

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
        self._probes: dict[str, Probe] = {}
        for name, operator in self._operators.items():
            probe = operator.unary_share
            if probe is None:
                raise UserValueError(
                    f'{name} is {type(operator).__name__}, but the terms weigh something only in '
                    'operators that have a unary share: LESA and SelfAttention'
                )
            self._probes[name] = probe
        self._shares: dict[str, list[Tensor]] = {name: [] for name in self._operators}
        self._handles: list[RemovableHandle] = []

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
        for name, probe in self._probes.items():
            see = partial(self._see, self._shares[name], probe.read)
            self._handles.append(probe.part.register_forward_hook(see))
        return self

    def __exit__(self, *_: Any) -> None:
        """Watch no more; what was measured stays."""
        while self._handles:
            self._handles.pop().remove()

    @staticmethod
    @torch.no_grad()
    def _see(
        shares: list[Tensor], read: Callable, part: nn.Module, inputs: tuple, output: Tensor
    ) -> None:
        shares.append(read(inputs, output).flatten(1).mean(1))

    def unary(self) -> dict[str, float]:
        """Unary share of every layer in [0, 1]: mean over images, of each over all its positions.

        SelfAttention: over heads, too; LESA: over channels, too.

        Raises:
            ValueError: If no image was seen.
        """
        if not all(self._shares.values()):
            raise UserValueError('no image was run, so that nothing was measured')
        return {name: torch.cat(shares).mean().item() for name, shares in self._shares.items()}


def with_mean(unary: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Unary and binary share of every layer, and behind the layers their ``'mean'``."""
    unary = {**unary, 'mean': fmean(unary.values())}
    return {name: dict(unary=share, binary=1 - share) for name, share in unary.items()}


@contextmanager
def ablated(model: nn.Module) -> Iterator[None]:
    """Meanwhile no position of any context term attends to itself (paper, Table 1).

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
