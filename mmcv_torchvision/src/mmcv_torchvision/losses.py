"""Focal losses (Lin et al. 2017) of logits, in plain torch.

Targets are classes, int64 with shape (n,). Weights are of the classes, or empty.
"""

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float32).tiny  # the logarithm of zero is that of this


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill the loss of each logit.

    Args:
        input (Tensor): Logits, shape (n, classes).
        target (Tensor): Shape (n,); the number of classes stands for background.
        weight (Tensor): Shape (classes,), or empty; background weighs 1.
        output (Tensor): Filled, shape (n, classes).
        gamma (float): Exponent that lets easy examples count less.
        alpha (float): Share of the positive; the negative have the rest.
    """
    p, of_class, weight = unpack(input, target, weight)
    positive = (1 - p) ** gamma * log(p)
    negative = p**gamma * log(1 - p)
    loss = torch.where(of_class, -alpha * positive, (alpha - 1) * negative)
    output.copy_(loss * weight)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill the derivative of each loss by its logit, as :func:`sigmoid_focal_loss_forward`."""
    p, of_class, weight = unpack(input, target, weight)
    positive = (1 - p) ** gamma * (1 - p - gamma * p * log(p))
    negative = p**gamma * (gamma * (1 - p) * log(1 - p) - p)
    grad = torch.where(of_class, -alpha * positive, (alpha - 1) * negative)
    grad_input.copy_(grad * weight)


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill the loss of each example.

    Args:
        input (Tensor): Probabilities, the logits' softmax, shape (n, classes).
        target (Tensor): Shape (n,); negative ones do not count.
        weight (Tensor): Shape (classes,), or empty.
        output (Tensor): Filled, shape (n,).
        gamma (float): Exponent that lets easy examples count less.
        alpha (float): Factor of the loss.
    """
    p, counts = of_target(input, target, weight)
    output.copy_(-alpha * (1 - p) ** gamma * log(p) * counts)


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill the derivative of each loss by its logits, as :func:`softmax_focal_loss_forward`.

    Args:
        buff (Tensor): Filled, shape (n,): what all logits of an example have in common.
        grad_input (Tensor): Filled, shape (n, classes).
    """
    p, counts = of_target(input, target, weight)
    # Where p is 1, its factor below is 0, but a power of 0 may be infinite.
    slope = gamma * (1 - p) ** (gamma - 1) * p * log(p) - (1 - p) ** gamma
    buff.copy_(alpha * slope.where(p < 1, 0) * counts)
    is_target = torch.arange(input.shape[1], device=input.device) == target[:, None]
    grad_input.copy_(buff[:, None] * (is_target.to(input.dtype) - input))


def unpack(input: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
    """Probabilities, whether each is of the target, and weights; halves are widened."""
    p = (input.float() if input.element_size() < 4 else input).sigmoid()
    of_class = torch.arange(input.shape[1], device=input.device) == target[:, None]
    if weight.numel():
        weight = torch.cat([weight, weight.new_ones(1)])[target][:, None]
    else:
        weight = 1.0
    return p, of_class, weight


def of_target(input: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of each target, and its weight, 0 if the target is negative."""
    index = target.clamp(min=0)
    probabilities = input.float() if input.element_size() < 4 else input
    counts = (target >= 0).to(probabilities.dtype)
    if weight.numel():
        counts = counts * weight[index]
    return probabilities.gather(1, index[:, None])[:, 0], counts


def log(p: Tensor) -> Tensor:
    """A logarithm without an infinity."""
    return p.clamp(min=SMALLEST).log()
