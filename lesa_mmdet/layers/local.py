"""The local (unary) term: what a place says about itself."""

from typing import Optional

from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import Tensor, nn

from ..registry import BaseModule


class LocalTerm(BaseModule):
    """3x3 convolution with one group a head, 1x1 projection, norm (paper, section 3.2).

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        num_heads (int): Groups of the 3x3 convolution.
        dilation (int): Dilation of the 3x3 convolution.
        dcn (dict, optional): Config of a deformable 3x3 convolution of mmcv instead, for example
            ``dict(type='DCN', deform_groups=1)``.
        norm_cfg (dict): Config of the norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_heads: int = 8,
        dilation: int = 1,
        dcn: Optional[dict] = None,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        super().__init__()
        # Whether a *strided* convolution stays plain does not matter here: this one never is.
        conv_cfg = dcn and {key: dcn[key] for key in dcn if key != 'fallback_on_stride'}
        self.conv = build_conv_layer(
            conv_cfg,
            in_channels,
            out_channels,
            kernel_size=3,
            padding=dilation,
            dilation=dilation,
            groups=num_heads,
            bias=False,
        )
        self.project = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.norm = build_norm_layer(norm_cfg, out_channels)[1]

    def init_weights(self) -> None:
        """Start a deformable convolution as a plain one, whatever a backbone's init_cfg did."""
        super().init_weights()
        if hasattr(self.conv, 'conv_offset'):
            nn.init.zeros_(self.conv.conv_offset.weight)
            nn.init.zeros_(self.conv.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return self.norm(self.project(self.conv(x)))
