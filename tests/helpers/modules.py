"""Modules whose parameters differ."""

from torch import nn


def randomized(module, std=0.3):
    """Give every parameter and every running variance of a module a value of its own."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    for name, buffer in module.named_buffers():
        if name.endswith('running_var'):
            nn.init.uniform_(buffer, 0.5, 1.5)
    return module
