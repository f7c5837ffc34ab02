"""Multi-scale deformable attention (Zhu et al. 2021), by mmcv's own definition in torch."""

import torch


def ms_deform_attn_forward(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    im2col_step: int,
) -> torch.Tensor:
    """Weighted sums of samples of all levels.

    Args:
        value (torch.Tensor): Shape (batch, keys, heads, channels of a head).
        spatial_shapes (torch.Tensor): Height and width of each level, int64, shape (levels, 2).
        level_start_index (torch.Tensor): Not used: levels lie one after the other.
        sampling_locations (torch.Tensor): Fractions (x, y) of a level's size, shape (batch,
            queries, heads, levels, points, 2).
        attention_weights (torch.Tensor): Shape (batch, queries, heads, levels, points).
        im2col_step (int): Not used.

    Returns:
        torch.Tensor: Shape (batch, queries, heads * channels of a head).
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(
        value, spatial_shapes, sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    grad_output: torch.Tensor,
    grad_value: torch.Tensor,
    grad_sampling_loc: torch.Tensor,
    grad_attn_weight: torch.Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of :func:`ms_deform_attn_forward`, which is computed once more."""
    inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            inputs[0], spatial_shapes, level_start_index, *inputs[1:], im2col_step
        )
    grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)
