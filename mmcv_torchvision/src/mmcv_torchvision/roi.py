"""Pooling of regions of interest (RoI).

RoIs have shape (n, 5): the index of the image, left, top, right, bottom; the dtype is the input's.
"""

from operator import itemgetter

import torch
from torch import Tensor

from .checks import give, have_shape, same_dtype, widened

operators = torch.ops.torchvision
# Of mmcv's keywords, torchvision's arguments.
align_arguments = itemgetter(
    'spatial_scale', 'aligned_height', 'aligned_width', 'sampling_ratio', 'aligned'
)
pool_arguments = itemgetter('spatial_scale', 'pooled_height', 'pooled_width')
NOWHERE = -6e4  # a coordinate outside of any input, which float16 has


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    pool_mode: int,
    **arguments: float,
) -> None:
    """Pool samples of the input in each cell of each RoI.

    Args:
        input (Tensor): Shape (batch, channels, height, width).
        rois (Tensor): Shape (n, 5).
        output (Tensor): Filled, shape (n, channels, aligned_height, aligned_width).
        argmax_y (Tensor): Filled with the row of the largest sample in its cell's grid of
            samples, if ``pool_mode`` is 0: :func:`roi_align_backward` takes it.
        argmax_x (Tensor): Likewise, with the column.
        pool_mode (int): 0 takes the largest sample, 1 their mean.
        **arguments (float): mmcv's others: ``aligned_height`` and ``aligned_width``, cells of a
            RoI; ``spatial_scale`` of the input's cells to the RoIs' pixels; ``sampling_ratio``,
            samples in each direction of a cell, 0 for one in each cell of the input that it covers;
            ``aligned``, whether the centre of a pixel is at 0.5, not at 0.

    Raises:
        TypeError: If the RoIs' dtype is not the input's.
        ValueError: If the RoIs have another shape or, on the CPU, are of images that there are not.
    """
    check(input, rois)
    scale, *size, sampling_ratio, aligned = align_arguments(arguments)
    features, boxes = widened(input, without_lost(rois))
    if pool_mode:
        pooled = operators.roi_align(features, boxes, scale, *size, sampling_ratio, aligned)
        give(output, pooled)
        return
    for grid, chosen in grids(boxes, size, scale, sampling_ratio, aligned):
        # As many cells as there are samples, with one sample each, at the same places.
        cells = size[0] * grid[0], size[1] * grid[1]
        samples = operators.roi_align(features, boxes[chosen], scale, *cells, 1, aligned)
        best, index = as_grids(samples, grid).flatten(-2).max(-1)
        output[chosen] = best.to(output.dtype)
        argmax_y[chosen] = index.div(grid[1], rounding_mode='floor').to(argmax_y.dtype)
        argmax_x[chosen] = index.remainder(grid[1]).to(argmax_x.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    pool_mode: int,
    **arguments: float,
) -> None:
    """Fill the gradient of the input of :func:`roi_align_forward`, which has the arguments."""
    check(grad_input, rois)
    same_dtype(grad_output=grad_output, rois=rois)
    scale, *size, sampling_ratio, aligned = align_arguments(arguments)
    grad, boxes = widened(grad_output, without_lost(rois))
    shape = grad_input.shape
    if pool_mode:
        result = operators._roi_align_backward(
            grad, boxes, scale, *size, *shape, sampling_ratio, aligned
        )
        give(grad_input, result)
        return
    for grid, chosen in grids(boxes, size, scale, sampling_ratio, aligned):
        cells = size[0] * grid[0], size[1] * grid[1]
        of_samples = grad.new_zeros(len(chosen), shape[1], *cells)
        index = (argmax_y[chosen] * grid[1] + argmax_x[chosen]).long()
        scattered = grad.new_zeros(*index.shape, grid[0] * grid[1])
        scattered.scatter_(-1, index[..., None], grad[chosen][..., None])
        as_grids(of_samples, grid).copy_(scattered.unflatten(-1, grid))
        grad_input += operators._roi_align_backward(
            of_samples, boxes[chosen], scale, *cells, *shape, 1, aligned
        ).to(grad_input.dtype)


def grids(
    rois: Tensor, size: list[int], scale: float, sampling_ratio: int, aligned: bool
) -> list[tuple[tuple[int, int], Tensor]]:
    """Rows and columns of samples in each cell, with the indices of the RoIs that have as many.

    RoIs without any size have no samples: they are left out, and stay zero.
    """
    if sampling_ratio > 0:
        counts = torch.full((len(rois), 2), sampling_ratio)
    else:
        extent = rois[:, [4, 3]] * scale - rois[:, [2, 1]] * scale
        if not aligned:
            extent = extent.clamp(min=1)
        counts = (extent / extent.new_tensor(size)).ceil().long().cpu()
    kinds, kind = counts.unique(dim=0, return_inverse=True)
    return [
        (tuple(grid), (kind == number).nonzero()[:, 0].to(rois.device))
        for number, grid in enumerate(kinds.tolist())
        if min(grid) > 0
    ]


def as_grids(samples: Tensor, grid: tuple[int, int]) -> Tensor:
    """Samples (n, c, rows, columns) as a view (n, c, cells down, cells across, *grid)."""
    return samples.unflatten(-1, (-1, grid[1])).unflatten(-3, (-1, grid[0])).transpose(-3, -2)


def roi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, **arguments: float
) -> None:
    """Take the largest number in each cell of each RoI, whose borders torchvision rounds.

    Args:
        input (Tensor): Shape (batch, channels, height, width).
        rois (Tensor): Shape (n, 5).
        output (Tensor): Filled, shape (n, channels, pooled_height, pooled_width).
        argmax (Tensor): Filled with the places of the largest, int32, -1 in empty cells.
        **arguments (float): mmcv's ``pooled_height`` and ``pooled_width``, cells of a RoI, and
            ``spatial_scale`` of the input's cells to the RoIs' pixels.

    Raises:
        TypeError: If the RoIs' dtype is not the input's.
        ValueError: If the RoIs have another shape or, on the CPU, are of images that there are not.
    """
    check(input, rois)
    features, boxes = widened(input, rois)
    pooled, index = operators.roi_pool(features, boxes, *pool_arguments(arguments))
    give(output, pooled)
    give(argmax, index)


def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, **arguments: float
) -> None:
    """Fill the gradient of the input of :func:`roi_pool_forward`, which has the arguments."""
    check(grad_input, rois)
    same_dtype(grad_output=grad_output, rois=rois)
    grad, boxes = widened(grad_output, rois)
    result = operators._roi_pool_backward(
        grad, boxes, argmax, *pool_arguments(arguments), *grad_input.shape
    )
    give(grad_input, result)


def without_lost(rois: Tensor) -> Tensor:
    """RoIs with those that are not finite outside of the input, where samples are zero.

    torchvision's kernels would read memory that is not the input's.
    """
    images, coordinates = rois[:, :1], rois[:, 1:]
    lost = ~coordinates.isfinite().all(1, keepdim=True)
    return torch.cat([images, coordinates.masked_fill(lost, NOWHERE)], dim=1)


def check(input: Tensor, rois: Tensor) -> None:
    """Refuse RoIs that do not fit; on a GPU, looking at the images' indices would wait for it."""
    have_shape('input', input, None, None, None, None)
    have_shape('rois', rois, None, 5)
    same_dtype(input=input, rois=rois)
    if len(rois) and 0 in input.shape[2:]:
        raise ValueError(f'input has shape {tuple(input.shape)}: there is nothing to pool')
    if rois.device.type == 'cpu' and len(rois):
        first, last = (index.item() + 0.0 for index in rois[:, 0].aminmax())  # no -0
        if not (first >= 0 and last < len(input)):  # NaN is no image either
            raise ValueError(
                f'rois are of images {first:g} to {last:g}, but the input has {len(input)}'
            )
