"""Dynamic fusion: the weight of the context term, for each position and channel."""

import torch
from torch import Tensor, nn

from ...upstream import BaseModule
from .norm import build_norm, normed_conv


class DynamicFusion(BaseModule):
    """Weight omega of the context term from both terms (paper, equations 7 and 8).

    Args:
        channels (int): Channels of each term.
        norm_cfg (dict): Config of the norms.
    """

    def __init__(self, channels: int, *, norm_cfg: dict) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.norm1 = build_norm(norm_cfg, channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = build_norm(norm_cfg, channels)

    def forward(self, local: Tensor, context: Tensor) -> Tensor:
        """Omega in (0, 1), of the shape (B, C, H, W) of either term."""
        both = torch.cat((local, context), dim=1).relu_()
        hidden = normed_conv(both, self.conv1, self.norm1).relu_()
        return normed_conv(hidden, self.conv2, self.norm2).sigmoid()
