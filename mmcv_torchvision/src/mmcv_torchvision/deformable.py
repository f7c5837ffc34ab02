"""Deformable convolution (Dai et al. 2017), and with masks (Zhu et al. 2018)."""

import torch

from .checks import give, have_shape, same_dtype, widened

operators = torch.ops.torchvision


def deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolve the input at places that offsets move.

    Args:
        input (torch.Tensor): Shape (batch, channels, height, width).
        weight (torch.Tensor): Shape (out_channels, channels / group, kH, kW).
        offset (torch.Tensor): Pairs of rows and columns, in cells of the input: shape (batch,
            2 * deformable_group * kH * kW, out_height, out_width).
        output (torch.Tensor): Filled, shape (batch, out_channels, out_height, out_width).
        columns (torch.Tensor): Takes notes of a backward pass.
        ones (torch.Tensor): Not used.
        im2col_step (int): Not used: torchvision chooses how many images it takes at once.

    Raises:
        TypeError: If dtypes differ.
        ValueError: If shapes do not fit.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    tensors = dict(input=input, weight=weight, offset=offset)
    give(output, convolve(tensors, geometry, output.shape))


def deform_conv_backward_input(
    input: torch.Tensor,
    offset: torch.Tensor,
    grad_output: torch.Tensor,
    grad_input: torch.Tensor,
    grad_offset: torch.Tensor,
    weight: torch.Tensor,
    columns: torch.Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Fill the gradients of input and offset; the weight's, which comes along, is noted."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    tensors = dict(input=input, weight=weight, offset=offset)
    grads = gradients(grad_output, tensors, geometry)
    give(grad_input, grads['input'])
    give(grad_offset, grads['offset'])
    columns.noted = grad_output, grads['weight']


def deform_conv_backward_parameters(
    input: torch.Tensor,
    offset: torch.Tensor,
    grad_output: torch.Tensor,
    grad_weight: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Fill the gradient of the weight, as noted by the same backward pass, or computed."""
    noted_for, grad = columns.__dict__.pop('noted', (None, None))
    if noted_for is not grad_output:
        geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
        # Of the weight, mmcv passes only its gradient: linear in it, that does not depend on it.
        tensors = dict(input=input, weight=grad_weight, offset=offset)
        grad = gradients(grad_output, tensors, geometry)['weight']
    give(grad_weight, grad if scale == 1 else grad * scale)


def modulated_deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve the input at places that offsets move, weighted by a mask.

    As :func:`deform_conv_forward`, and:

    Args:
        bias (torch.Tensor): Shape (out_channels,), or anything without ``with_bias``.
        mask (torch.Tensor): A weight for each offset, shape (batch, deformable_group * kernel_h *
            kernel_w, out_height, out_width).
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    tensors = dict(input=input, weight=weight, offset=offset, mask=mask)
    if with_bias:
        tensors['bias'] = bias
    give(output, convolve(tensors, geometry, output.shape))


def modulated_deform_conv_backward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    columns: torch.Tensor,
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor,
    grad_bias: torch.Tensor,
    grad_offset: torch.Tensor,
    grad_mask: torch.Tensor,
    grad_output: torch.Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Fill the gradients of all inputs of :func:`modulated_deform_conv_forward`."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    tensors = dict(input=input, weight=weight, offset=offset, mask=mask)
    if with_bias:
        tensors['bias'] = bias
    grads = gradients(grad_output, tensors, geometry)
    give(grad_input, grads['input'])
    give(grad_weight, grads['weight'])
    give(grad_offset, grads['offset'])
    give(grad_mask, grads['mask'])
    if with_bias:
        give(grad_bias, grads['bias'])


def convolve(tensors: dict, geometry: tuple[int, ...], size: torch.Size) -> torch.Tensor:
    """torchvision's convolution; ``geometry`` are its arguments from stride to offset groups."""
    check(tensors, geometry, size)
    return operators.deform_conv2d(*arguments(tensors), *geometry, 'mask' in tensors)


def gradients(grad_output: torch.Tensor, tensors: dict, geometry: tuple[int, ...]) -> dict:
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


def arguments(tensors: dict) -> list[torch.Tensor]:
    """Input, weight, offset, mask and bias as torchvision takes them: there have to be all.

    An offset that is no number puts its sample outside, where it is zero, as mmcv's kernels have
    it: torchvision's would read memory that is not the input's.
    """
    input, weight, offset = (tensors[name] for name in ('input', 'weight', 'offset'))
    offset = offset.nan_to_num(torch.finfo(offset.dtype).min)
    mask = tensors.get('mask', input.new_zeros(len(input), 1))
    bias = tensors.get('bias', input.new_zeros(len(weight)))
    return widened(input, weight, offset, mask, bias)


def positions(offset: torch.Tensor, kernel: torch.Size, geometry: tuple[int, ...]) -> torch.Tensor:
    """Rows and columns of all samples, rounded as the kernels do.

    Returns:
        torch.Tensor: Shape (batch, groups, rows of the kernel, columns of the kernel, 2, height,
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
