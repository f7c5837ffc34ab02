"""Inputs of weighted neighbourhood sums, and what the definition makes of them."""

import torch
from hypothesis import strategies as st

from lesa_mmdet.attention import attend_neighborhood
from lesa_mmdet.attention.neighborhood.reference import attend_neighborhood_reference

NAMES = ('v', 'weights', 'mul', 'add')


def sums(dtypes, batch=(0, 2), heads=3, height=12, sizes=(1, 3, 5, 7)):
    """A strategy of arguments of ``make_inputs``, by name."""
    return st.fixed_dictionaries(
        dict(
            batch=st.integers(*batch),
            heads=st.integers(1, heads),
            d=st.integers(1, 5),
            height=st.integers(1, height),
            width=st.integers(1, 12),
            size=st.sampled_from(sizes),
            dtype=st.sampled_from(dtypes),
            fixed=st.sets(st.sampled_from(NAMES[2:])),
        )
    )


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


def restride(inputs, memory_format):
    """The same values as half the channels of a larger map, weights neighbour by neighbour."""
    v, weights = inputs['v'], inputs['weights']
    wide = torch.cat((v, v), 1).contiguous(memory_format=memory_format)
    weights = weights.permute(3, 4, 0, 1, 2).contiguous().permute(2, 3, 4, 0, 1)
    return {**inputs, 'v': wide[:, v.shape[1] :], 'weights': weights}


def run(function, inputs, grad_out=None):
    """Output and gradients by name, for a fixed random gradient of the output."""
    inputs = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    out = function(**inputs)
    if grad_out is None:
        grad_out = random_gradient(out.shape)
    grads = torch.autograd.grad(out, list(inputs.values()), grad_out.to(out))
    return {'output': out.detach(), **dict(zip(inputs, grads, strict=True))}


def random_gradient(shape):
    """A fixed gradient of an output; of few bits, so that it is the same number in every type."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64).bfloat16()


def compute(backend, inputs, dilation=1, grad_out=None):
    """What a backend gives."""
    return run(
        lambda **x: attend_neighborhood(**x, dilation=dilation, backend=backend), inputs, grad_out
    )


def define(inputs, dilation=1, grad_out=None):
    """What the definition gives in float64."""
    return run(
        lambda v, weights, mul=None, add=None: attend_neighborhood_reference(
            v, weights, mul, add, dilation
        ),
        {name: x.double() for name, x in inputs.items()},
        grad_out,
    )


def define_magnitudes(inputs, dilation=1):
    """Sums of absolute values instead of values, in proportion to which float32 is off."""
    absolute = {name: x.abs() for name, x in inputs.items()}
    return define(absolute, dilation, random_gradient(inputs['v'].shape).abs())


def assert_close(results, expected, tolerance, magnitudes=None):
    """Compare, relative to the largest value or, where terms cancel, to the largest magnitude."""
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name].shape == value.shape, name
        if value.numel():
            error = (results[name].double() - value).abs().max()
            allowed = tolerance * value.abs().max().clamp(min=1)
            if magnitudes:
                allowed += torch.finfo(torch.float32).eps * magnitudes[name].max()
            assert error <= allowed, f'{name} is off by {error:.1e} > {allowed:.1e}'
