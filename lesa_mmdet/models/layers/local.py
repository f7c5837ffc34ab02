"""The local (unary) term: a position's weight for its own surroundings."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import build_conv_layer
from torch import Tensor, nn

from ...checkpoints.resnet import decompose_grouped, moved_statistics
from ...upstream import BaseModule
from .norm import build_norm, normed_conv


class LocalTerm(BaseModule):
    """3x3 convolution with one group per head, 1x1 projection, norm (paper, section 3.2).

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
        num_heads: int,
        dilation: int,
        dcn: dict[str, Any] | None,
        norm_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        self.conv = build_local_conv(
            in_channels, out_channels, groups=num_heads, dilation=dilation, dcn=dcn
        )
        self.project = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.norm = build_norm(norm_cfg, out_channels)

    def init_weights(self) -> None:
        """Start a deformable convolution as a plain one, whatever a backbone's init_cfg did."""
        super().init_weights()
        reset_offsets(self.conv)

    def from_convolution(
        self, conv: Mapping[str, Tensor], norm: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], float]:
        """Its tensors that come nearest to a convolution and a norm, and the energy that they keep.

        Exact if the kernel's rank for the inputs of a group is C_out / groups at most.
        """
        groups, inputs = self.conv.groups, conv.get('inputs')
        kernel, project, energy = decompose_grouped(conv['weight'], groups, inputs)
        if inputs is not None:
            outputs = F.conv2d(inputs, conv['weight'])
            nearest = F.conv2d(F.conv2d(inputs, kernel, groups=groups), project)
            norm = moved_statistics(norm, outputs, nearest)
        state = {
            'conv.weight': kernel,
            'project.weight': project,
            **offsets_of(conv, 'conv'),
            **{f'norm.{leaf}': value for leaf, value in norm.items()},
        }
        return state, energy

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return normed_conv(self.conv(x), self.project, self.norm)


def build_local_conv(
    in_channels: int,
    out_channels: int,
    *,
    groups: int = 1,
    dilation: int = 1,
    dcn: dict[str, Any] | None = None,
) -> nn.Module:
    """Build a 3x3 convolution of stride 1, a deformable one of mmcv if ``dcn`` is its config."""
    # Whether a *strided* convolution stays plain does not matter here: this one never is.
    conv_cfg = dcn and {key: dcn[key] for key in dcn if key != 'fallback_on_stride'}
    return build_conv_layer(
        conv_cfg,
        in_channels,
        out_channels,
        kernel_size=3,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        bias=False,
    )


def reset_offsets(conv: nn.Module) -> None:
    """Let a convolution, if it is deformable, start as a plain one."""
    if hasattr(conv, 'conv_offset'):
        nn.init.zeros_(conv.conv_offset.weight)
        nn.init.zeros_(conv.conv_offset.bias)


def offsets_of(conv: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The offsets of a convolution, if it is deformable, named for another convolution."""
    return {f'{name}.{leaf}': conv[leaf] for leaf in conv if leaf.startswith('conv_offset.')}
