"""Pooling of regions of interest (RoI).

RoIs have shape (n, 5): the index of the image, left, top, right, bottom; the dtype is the input's.
"""

import torch

from .checks import give, have_shape, same_dtype, widened

operators = torch.ops.torchvision

NOWHERE = -6e4  # a coordinate outside of any input, which float16 has


def roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool samples of the input in each cell of each RoI.

    Args:
        input (torch.Tensor): Shape (batch, channels, height, width).
        rois (torch.Tensor): Shape (n, 5).
        output (torch.Tensor): Filled, shape (n, channels, aligned_height, aligned_width).
        argmax_y (torch.Tensor): Filled with the row of the largest sample in its cell's grid of
            samples, if ``pool_mode`` is 0: :func:`roi_align_backward` takes it.
        argmax_x (torch.Tensor): Likewise, with the column.
        aligned_height (int): Cells of a RoI.
        aligned_width (int): Cells of a RoI.
        spatial_scale (float): Of the input's cells to the RoIs' pixels.
        sampling_ratio (int): Samples in each direction of a cell; 0: one for each cell of the input
            that it covers.
        pool_mode (int): 0 takes the largest sample, 1 their mean.
        aligned (bool): Whether the centre of a pixel is at 0.5, not at 0.

    Raises:
        TypeError: If the RoIs' dtype is not the input's.
        ValueError: If the RoIs have another shape or, on the CPU, are of images that there are not.
    """
    check(input, rois)
    size = (aligned_height, aligned_width)
    features, boxes = widened(input, without_lost(rois))
    if pool_mode:
        pooled = operators.roi_align(features, boxes, spatial_scale, *size, sampling_ratio, aligned)
        give(output, pooled)
        return
    for grid, chosen in grids(boxes, size, spatial_scale, sampling_ratio, aligned):
        # As many cells as there are samples, with one sample each, at the same places.
        cells = size[0] * grid[0], size[1] * grid[1]
        samples = operators.roi_align(features, boxes[chosen], spatial_scale, *cells, 1, aligned)
        best, index = as_grids(samples, grid).flatten(-2).max(-1)
        output[chosen] = best.to(output.dtype)
        argmax_y[chosen] = index.div(grid[1], rounding_mode='floor').to(argmax_y.dtype)
        argmax_x[chosen] = index.remainder(grid[1]).to(argmax_x.dtype)


def roi_align_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill the gradient of the input of :func:`roi_align_forward`, which has the arguments."""
    check(grad_input, rois)
    same_dtype(grad_output=grad_output, rois=rois)
    size = (aligned_height, aligned_width)
    grad, boxes = widened(grad_output, without_lost(rois))
    shape = grad_input.shape
    if pool_mode:
        result = operators._roi_align_backward(
            grad, boxes, spatial_scale, *size, *shape, sampling_ratio, aligned
        )
        give(grad_input, result)
        return
    for grid, chosen in grids(boxes, size, spatial_scale, sampling_ratio, aligned):
        cells = size[0] * grid[0], size[1] * grid[1]
        of_samples = grad.new_zeros(len(chosen), shape[1], *cells)
        index = (argmax_y[chosen] * grid[1] + argmax_x[chosen]).long()
        scattered = grad.new_zeros(*index.shape, grid[0] * grid[1])
        scattered.scatter_(-1, index[..., None], grad[chosen][..., None])
        as_grids(of_samples, grid).copy_(scattered.unflatten(-1, grid))
        grad_input += operators._roi_align_backward(
            of_samples, boxes[chosen], spatial_scale, *cells, *shape, 1, aligned
        ).to(grad_input.dtype)


def grids(
    rois: torch.Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> list[tuple[tuple[int, int], torch.Tensor]]:
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


def as_grids(samples: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Samples (n, c, rows, columns) as a view (n, c, cells down, cells across, *grid)."""
    return samples.unflatten(-1, (-1, grid[1])).unflatten(-3, (-1, grid[0])).transpose(-3, -2)


def roi_pool_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Take the largest number in each cell of each RoI, whose borders torchvision rounds.

    Args:
        input (torch.Tensor): Shape (batch, channels, height, width).
        rois (torch.Tensor): Shape (n, 5).
        output (torch.Tensor): Filled, shape (n, channels, pooled_height, pooled_width).
        argmax (torch.Tensor): Filled with the places of the largest, int32, -1 in empty cells.
        pooled_height (int): Cells of a RoI.
        pooled_width (int): Cells of a RoI.
        spatial_scale (float): Of the input's cells to the RoIs' pixels.

    Raises:
        TypeError: If the RoIs' dtype is not the input's.
        ValueError: If the RoIs have another shape or, on the CPU, are of images that there are not.
    """
    check(input, rois)
    features, boxes = widened(input, rois)
    pooled, index = operators.roi_pool(features, boxes, spatial_scale, pooled_height, pooled_width)
    give(output, pooled)
    give(argmax, index)


def roi_pool_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax: torch.Tensor,
    grad_input: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill the gradient of the input of :func:`roi_pool_forward`, which has the arguments."""
    check(grad_input, rois)
    same_dtype(grad_output=grad_output, rois=rois)
    grad, boxes = widened(grad_output, rois)
    result = operators._roi_pool_backward(
        grad, boxes, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape
    )
    give(grad_input, result)


def without_lost(rois: torch.Tensor) -> torch.Tensor:
    """RoIs with those that are not finite outside of the input, where samples are zero.

    torchvision's kernels would read memory that is not the input's.
    """
    images, coordinates = rois[:, :1], rois[:, 1:]
    lost = ~coordinates.isfinite().all(1, keepdim=True)
    return torch.cat([images, coordinates.masked_fill(lost, NOWHERE)], dim=1)


def check(input: torch.Tensor, rois: torch.Tensor) -> None:
    """Refuse RoIs that do not fit; on a GPU, looking at the images' indices would wait for it."""
    have_shape('input', input, None, None, None, None)
    have_shape('rois', rois, None, 5)
    same_dtype(input=input, rois=rois)
    if len(rois) and 0 in input.shape[2:]:
        raise ValueError(f'input has shape {tuple(input.shape)}: there is nothing to pool')
    if rois.device.type == 'cpu' and len(rois):
        first, last = (index.item() for index in rois[:, 0].aminmax())
        if not (first >= 0 and last < len(input)):  # NaN is no image either
            raise ValueError(
                f'rois are of images {first:g} to {last:g}, but the input has {len(input)}'
            )
