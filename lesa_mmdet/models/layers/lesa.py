"""LESA and the self-attention it enhances."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.resnet import TakenOver, only_affine, only_statistics
from ...upstream import MODELS
from ...utils.errors import UserValueError
from .base import Probe
from .context import ContextOperator, build_context, check_heads
from .fusion import DynamicFusion
from .local import LocalTerm
from .recompute import checkpointed


@MODELS.register_module()
class LESA(ContextOperator):
    """Locally Enhanced Self-Attention: ``local(x) + omega * context(x)`` (paper, section 3).

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 2 * num_heads.
        feat_size (tuple[int, int]): (H, W) of the map the position tables are built for. With
            'decomposed' positions any other map is taken, too.
        num_heads (int): Heads of the attention and groups of the local convolution.
        dilation (int): Dilation of the local convolution.
        position (str): 'decomposed' (detection) or 'flattened' (ImageNet).
        fusion (str): 'dynamic', or 'static': omega is 1 everywhere.
        dcn (dict, optional): Config of a deformable local convolution.
        norm_cfg (dict): Config of all norms: a batch norm.
        **context: Further arguments of the context term: ``backend``.

    Raises:
        ValueError: If channels and heads do not fit, or position or fusion is unknown.
    """

    reads = ('feat_size', 'num_heads', 'dilation', 'dcn', 'norm_cfg')

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        feat_size: tuple[int, int],
        num_heads: int = 8,
        dilation: int = 1,
        position: str = 'decomposed',
        fusion: str = 'dynamic',
        dcn: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] = dict(type='BN'),
        **context: Any,
    ) -> None:
        super().__init__()
        if fusion not in ('dynamic', 'static'):
            raise UserValueError(f"fusion {fusion!r} is unknown; available: 'dynamic', 'static'")
        check_heads(num_heads)
        if in_channels % num_heads or out_channels % num_heads:
            raise UserValueError(
                f'in_channels and out_channels have to be multiples of num_heads = {num_heads}, '
                f'got {in_channels} and {out_channels}'
            )
        self.local = LocalTerm(
            in_channels,
            out_channels,
            num_heads=num_heads,
            dilation=dilation,
            dcn=dcn,
            norm_cfg=norm_cfg,
        )
        self.context = build_context(
            in_channels,
            out_channels,
            position=position,
            feat_size=feat_size,
            num_heads=num_heads,
            norm_cfg=norm_cfg,
            **context,
        )
        dynamic = fusion == 'dynamic'
        self.fusion = DynamicFusion(out_channels, norm_cfg=norm_cfg) if dynamic else None

    @property
    def is_normed(self) -> bool:
        """Both terms are normed, and omega weighs them: a norm of their sum would undo that."""
        return self.fusion is not None

    @property
    def local_conv(self) -> nn.Module:
        """The 3x3 convolution of the local term."""
        return self.local.conv

    @property
    def omega(self) -> Probe | None:
        """What dynamic fusion gives."""
        if self.fusion is None:
            return None
        return Probe(self.fusion, lambda inputs, omega: omega)

    @property
    def unary_share(self) -> Probe:
        """The local term's part of ``1 + omega``."""
        if self.fusion is None:
            return Probe(self, lambda inputs, out: torch.full((len(out), 1), 0.5))
        return Probe(self.fusion, lambda inputs, omega: 1 / (1 + omega.float()))

    def from_convolution(
        self, conv: Mapping[str, Tensor], norm: Mapping[str, Tensor], *, zero_init_context: bool
    ) -> TakenOver:
        """The local term takes over convolution and norm as nearly as it can."""
        # Static LESA's sum has a norm behind it: the two share what the convolution's one did.
        inner = only_statistics(norm) if self.fusion is None else norm
        local, energy = self.local.from_convolution(conv, inner)
        state = {f'local.{leaf}': value for leaf, value in local.items()}
        if zero_init_context:
            state.update(self.context.silent('context'))
        return TakenOver(state, only_affine(norm), energy)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        local, context = self.local(x), self.context(x)
        if self.fusion is None:
            return local + context
        return checkpointed(self._fuse, local, context, modules=[self.fusion])

    def _fuse(self, local: Tensor, context: Tensor) -> Tensor:
        return local + self.fusion(local, context) * context


@MODELS.register_module()
class SelfAttention(ContextOperator):
    """The context term alone, the paper's self-attention baseline.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 2 * num_heads.
        **context: ``feat_size``, ``num_heads``, ``position``, ``norm_cfg`` and ``backend``, as of
            :class:`LESA`.

    Raises:
        ValueError: If channels and heads do not fit, or the position is unknown.
    """

    reads = ('feat_size', 'num_heads', 'norm_cfg')

    def __init__(self, in_channels: int, out_channels: int, **context: Any) -> None:
        super().__init__()
        self.context = build_context(in_channels, out_channels, **context)

    @property
    def unary_share(self) -> Probe:
        """The softmax weight (B, heads, H * W) of each position for itself."""
        context = self.context
        return Probe(
            context, lambda inputs, out: context.unary_weights(context.factors(*inputs)).float()
        )

    def from_convolution(
        self, conv: Mapping[str, Tensor], norm: Mapping[str, Tensor], *, zero_init_context: bool
    ) -> TakenOver:
        """Nothing of the kernel: the values of all positions have one projection."""
        state = self.context.silent('context') if zero_init_context else {}
        return TakenOver(state, only_affine(norm), None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return self.context(x)
