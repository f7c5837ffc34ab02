"""Convolution at chosen places of one image alone."""

import torch
import torch.nn.functional as F

from .checks import give, have_shape, same_dtype


def masked_im2col_forward(
    im: torch.Tensor,
    mask_h_idx: torch.Tensor,
    mask_w_idx: torch.Tensor,
    col: torch.Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Gather the windows of the chosen places, zero outside of the image.

    Args:
        im (torch.Tensor): Shape (1, channels, height, width).
        mask_h_idx (torch.Tensor): Rows of the places, int64, shape (n,).
        mask_w_idx (torch.Tensor): Columns of the places.
        col (torch.Tensor): Filled, shape (channels * kernel_h * kernel_w, n).
        kernel_h (int): Rows of a window; its first is ``pad_h`` before the place's.
        kernel_w (int): Columns of a window.
        pad_h (int): See ``kernel_h``.
        pad_w (int): See ``kernel_h``.
    """
    have_shape('im', im, 1, None, None, None)
    padded = F.pad(im[0], (pad_w, kernel_w - 1, pad_h, kernel_h - 1))
    rows = torch.arange(kernel_h, device=im.device)[:, None] + mask_h_idx
    columns = torch.arange(kernel_w, device=im.device)[:, None] + mask_w_idx
    give(col, padded[:, rows[:, None], columns].flatten(0, 2))


def masked_col2im_forward(
    col: torch.Tensor,
    mask_h_idx: torch.Tensor,
    mask_w_idx: torch.Tensor,
    im: torch.Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Put numbers to the chosen places.

    Args:
        col (torch.Tensor): Shape (channels, n).
        mask_h_idx (torch.Tensor): Rows of the places, int64, shape (n,).
        mask_w_idx (torch.Tensor): Columns of the places.
        im (torch.Tensor): Filled there, shape (1, channels, height, width).
        height (int): See ``im``.
        width (int): See ``im``.
        channels (int): See ``im``.
    """
    have_shape('im', im, 1, channels, height, width)
    have_shape('col', col, channels, len(mask_h_idx))
    same_dtype(col=col, im=im)
    im[0, :, mask_h_idx, mask_w_idx] = col
