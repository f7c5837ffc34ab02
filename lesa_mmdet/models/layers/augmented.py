"""Attention augmentation: convolution and attention side by side."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.resnet import TakenOver, energy_share, only_affine
from ...upstream import MODELS
from ...utils.errors import UserValueError
from .context import ContextOperator, DecomposedContext, check_heads
from .local import build_local_conv, offsets_of, reset_offsets


@MODELS.register_module()
class AugmentedAttention(ContextOperator):
    """Attention-augmented convolution (Bello et al. 2019, arXiv 1904.09925, section 3.2).

    The output concatenates the channels of a 3x3 convolution and those of multi-head self-attention
    with relative positions, the latter mixed by a 1x1 projection. The bottleneck's norm follows.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        num_heads (int): Heads of the attention.
        key_ratio (float): Channels of queries, and of keys, of all heads together by out_channels.
            They are rounded to a multiple of num_heads.
        value_ratio (float): The same for the values: the share of the output's channels that the
            attention gives.
        dilation (int): Dilation of the convolution.
        dcn (dict, optional): Config of a deformable convolution of mmcv instead.
        **context: Further arguments of the attention: ``feat_size``, (H, W) of the map the position
            tables are built for (any other is taken, too), and ``backend``.

    Raises:
        ValueError: If a ratio is not positive or leaves no channel to the convolution.
    """

    reads = ('feat_size', 'num_heads', 'dilation', 'dcn')

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_heads: int = 8,
        key_ratio: float = 0.2,
        value_ratio: float = 0.1,
        dilation: int = 1,
        dcn: dict[str, Any] | None = None,
        **context: Any,
    ) -> None:
        super().__init__()
        if key_ratio <= 0 or value_ratio <= 0:
            raise UserValueError(
                f'key_ratio and value_ratio have to be positive, got {key_ratio} and {value_ratio}'
            )
        check_heads(num_heads)
        key_dim, value_dim = (
            max(1, round(ratio * out_channels / num_heads)) for ratio in (key_ratio, value_ratio)
        )
        attention_channels = num_heads * value_dim
        if attention_channels >= out_channels:
            raise UserValueError(
                f'value_ratio {value_ratio} leaves the convolution none of {out_channels} output '
                f'channels: {num_heads} heads of {value_dim} channels take them; more channels, '
                'fewer heads or a smaller ratio would do'
            )
        self.conv = build_local_conv(
            in_channels, out_channels - attention_channels, dilation=dilation, dcn=dcn
        )
        self.context = DecomposedContext(
            in_channels,
            attention_channels,
            num_heads=num_heads,
            key_dim=key_dim,
            norm_cfg=None,
            **context,
        )
        self.project = nn.Conv2d(attention_channels, attention_channels, 1, bias=False)

    @property
    def local_conv(self) -> nn.Module:
        """The 3x3 convolution."""
        return self.conv

    def init_weights(self) -> None:
        """Start a deformable convolution as a plain one, whatever a backbone's init_cfg did."""
        super().init_weights()
        reset_offsets(self.conv)

    def from_convolution(
        self, conv: Mapping[str, Tensor], norm: Mapping[str, Tensor], *, zero_init_context: bool
    ) -> TakenOver:
        """Its convolution has the first channels of the given one; attention starts fresh."""
        kernel, kept = conv['weight'], self.conv.out_channels
        state = {'conv.weight': kernel[:kept], **offsets_of(conv, 'conv')}
        if zero_init_context:
            state['project.weight'] = torch.zeros_like(self.project.weight)
        behind = {
            leaf: torch.cat((norm[leaf][:kept], value[kept:])) if value.dim() else value
            for leaf, value in only_affine(norm).items()
        }
        return TakenOver(state, behind, energy_share(kernel[:kept], kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W): the convolution's channels come first."""
        return torch.cat((self.conv(x), self.project(self.context(x))), dim=1)
