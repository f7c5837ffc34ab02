"""Inputs of weighted neighbourhood sums, and what the definition makes of them."""

import torch

from lesa_mmdet.attention.neighborhood.reference import attend_neighborhood_reference

NAMES = ('v', 'weights', 'mul', 'add')


def make_inputs(batch, heads, d, height, width, size, dtype=torch.float64, fixed=NAMES[2:]):
    """Random v, weights and the matrices that are asked for."""
    generator = torch.Generator().manual_seed(0)
    shapes = dict(
        v=(batch, heads * d, height, width),
        weights=(batch, heads, size * size, height, width),
        mul=(heads * d, size, size),
        add=(heads * d, size, size),
    )
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in shapes.items()
        if name in ('v', 'weights', *fixed)
    }


def run(function, inputs, grad_out=None):
    """Output and gradients by name, for a fixed random gradient of the output."""
    inputs = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    out = function(**inputs)
    if grad_out is None:
        generator = torch.Generator().manual_seed(1)
        # Of few bits, so that it is the same number in every type.
        grad_out = torch.randn(out.shape, generator=generator, dtype=torch.float64).bfloat16()
    grads = torch.autograd.grad(out, list(inputs.values()), grad_out.to(out.dtype))
    return {'output': out.detach(), **dict(zip(inputs, grads))}


def define(inputs, dilation=1):
    """What the definition gives in float64."""
    return run(
        lambda v, weights, mul=None, add=None: attend_neighborhood_reference(
            v, weights, mul, add, dilation
        ),
        {name: x.double() for name, x in inputs.items()},
    )


def assert_close(results, expected, tolerance):
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name].shape == value.shape, name
        if value.numel():
            error = (results[name].double() - value).abs().max() / value.abs().max().clamp(min=1)
            assert error <= tolerance, f'{name} is off by {error:.1e} > {tolerance:.0e}'
