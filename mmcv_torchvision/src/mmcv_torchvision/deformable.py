"""Deformable convolution (Dai et al. 2017), and with masks (Zhu et al. 2018)."""

from operator import itemgetter

import torch
from torch import Tensor

from .checks import give, have_shape, same_dtype, widened

operators = torch.ops.torchvision
# Of mmcv's keywords, without and with a mask, torchvision's arguments from stride to offset groups.
# The others are not used: the weight has the kernel's size, and how many images are taken at once
# (im2col_step), torchvision decides.
geometry_of = itemgetter(
    'dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group'
)
modulated_geometry_of = itemgetter(
    *('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w'),
    *('group', 'deformable_group'),
)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **sizes: int,
) -> None:
    """Convolve the input at places that offsets move.

    Args:
        input (Tensor): Shape (batch, channels, height, width).
        weight (Tensor): Shape (out_channels, channels / group, kH, kW).
        offset (Tensor): Pairs of rows and columns, in cells of the input: shape (batch,
            2 * deformable_group * kH * kW, out_height, out_width).
        output (Tensor): Filled, shape (batch, out_channels, out_height, out_width).
        columns (Tensor): Takes notes of a backward pass.
        ones (Tensor): Not used.
        **sizes (int): mmcv's keywords: ``kH``, ``dH`` (stride), ``padH``, ``dilationH``, the same
            with ``W``, ``group``, ``deformable_group`` and ``im2col_step``.

    Raises:
        TypeError: If dtypes differ.
        ValueError: If shapes do not fit.
    """
    tensors = dict(input=input, weight=weight, offset=offset)
    give(output, convolve(tensors, geometry_of(sizes), output.shape))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **sizes: int,
) -> None:
    """Fill the gradients of input and offset; the weight's, which comes along, is noted."""
    tensors = dict(input=input, weight=weight, offset=offset)
    grads = gradients(grad_output, tensors, geometry_of(sizes))
    give(grad_input, grads['input'])
    give(grad_offset, grads['offset'])
    columns.noted = grad_output, grads['weight']


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **sizes: int,
) -> None:
    """Fill the gradient of the weight, as noted by the same backward pass, or computed."""
    noted_for, grad = columns.__dict__.pop('noted', (None, None))
    if noted_for is not grad_output:
        # mmcv does not pass the weight, but its gradient depends on its shape alone.
        tensors = dict(input=input, weight=grad_weight, offset=offset)
        grad = gradients(grad_output, tensors, geometry_of(sizes))['weight']
    give(grad_weight, grad if scale == 1 else grad * scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Convolve the input at places that offsets move, weighted by a mask.

    As :func:`deform_conv_forward`, and:

    Args:
        bias (Tensor): Shape (out_channels,), or anything without ``with_bias``.
        mask (Tensor): A weight for each offset, shape (batch, deformable_group * kernel_h *
            kernel_w, out_height, out_width).
    """
    tensors = dict(input=input, weight=weight, offset=offset, mask=mask)
    if with_bias:
        tensors['bias'] = bias
    give(output, convolve(tensors, modulated_geometry_of(sizes), output.shape))


def modulated_deform_conv_backward(*tensors: Tensor, with_bias: bool, **sizes: int) -> None:
    """Fill the gradients of all inputs of :func:`modulated_deform_conv_forward`.

    Args:
        *tensors (Tensor): Input, weight, bias, ones, offset, mask and columns as there, then the
            gradients of input, weight, bias, offset and mask, filled, and that of the output.
    """
    input, weight, bias, _, offset, mask, _, *filled, grad_output = tensors
    given = dict(input=input, weight=weight, offset=offset, mask=mask)
    if with_bias:
        given['bias'] = bias
    grads = gradients(grad_output, given, modulated_geometry_of(sizes))
    for name, grad in zip(('input', 'weight', 'bias', 'offset', 'mask'), filled, strict=True):
        if name in given:
            give(grad, grads[name])


def convolve(tensors: dict, geometry: tuple[int, ...], size: torch.Size) -> Tensor:
    """torchvision's convolution; ``geometry`` are its arguments from stride to offset groups."""
    check(tensors, geometry, size)
    return operators.deform_conv2d(*arguments(tensors), *geometry, 'mask' in tensors)


def gradients(grad_output: Tensor, tensors: dict, geometry: tuple[int, ...]) -> dict:
    """The gradients of all inputs, by name.

    At a distance of exactly one cell before the first one, where the padding of a convolution puts
    samples whose offsets are zero, interpolation has a kink. torchvision takes the slope inside,
    mmcv that outside, which is zero.
    """
    check(tensors, geometry, grad_output.shape)
    same_dtype(grad_output=grad_output, input=tensors['input'])
    [grad] = widened(grad_output)
    names = ('input', 'weight', 'offset', 'mask', 'bias')
    values = operators._deform_conv2d_backward(
        grad, *arguments(tensors), *geometry, 'mask' in tensors
    )
    result = dict(zip(names, values, strict=True))
    at_kink = positions(tensors['offset'], tensors['weight'].shape[2:], geometry) == -1
    result['offset'].view_as(at_kink).masked_fill_(at_kink, 0)
    return result


def arguments(tensors: dict) -> list[Tensor]:
    """Input, weight, offset, mask and bias as torchvision takes them: there have to be all.

    An offset that is no number puts its sample outside, where it is zero, as mmcv's kernels have
    it: torchvision's would read memory that is not the input's.
    """
    input, weight, offset = (tensors[name] for name in ('input', 'weight', 'offset'))
    offset = offset.nan_to_num(torch.finfo(offset.dtype).min)
    mask = tensors.get('mask', input.new_zeros(len(input), 1))
    bias = tensors.get('bias', input.new_zeros(len(weight)))
    return widened(input, weight, offset, mask, bias)


def positions(offset: Tensor, kernel: torch.Size, geometry: tuple[int, ...]) -> Tensor:
    """Rows and columns of all samples, rounded as the kernels do.

    Returns:
        Tensor: Shape (batch, groups, rows of the kernel, columns of the kernel, 2, height,
        width).
    """
    [offset] = widened(offset)
    height, width = offset.shape[-2:]
    rows, columns = (
        (torch.arange(size) * stride - pad + (torch.arange(taps) * dilation)[:, None])
        for size, stride, pad, taps, dilation in zip(
            (height, width), geometry[:2], geometry[2:4], kernel, geometry[4:6], strict=True
        )
    )
    grid = torch.stack(
        torch.broadcast_tensors(rows[:, None, :, None], columns[None, :, None, :]), dim=2
    )
    return offset.unflatten(1, (-1, *kernel, 2)) + grid.to(offset)


def check(tensors: dict, geometry: tuple[int, ...], size: torch.Size) -> None:
    """Refuse what does not fit, where torchvision's sentences begin with files of its source."""
    input, weight, groups, offset_groups = tensors['input'], tensors['weight'], *geometry[6:]
    have_shape('input', input, None, None, None, None)
    same_dtype(**tensors)
    taps = weight[0, 0].numel()
    have_shape('weight', weight, size[1], input.shape[1] // groups, None, None)
    have_shape('offset', tensors['offset'], len(input), 2 * offset_groups * taps, *size[2:])
    if 'mask' in tensors:
        have_shape('mask', tensors['mask'], len(input), offset_groups * taps, *size[2:])
    if 'bias' in tensors:
        have_shape('bias', tensors['bias'], len(weight))
