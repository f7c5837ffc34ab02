"""Swin Transformer whose blocks compute with an operator instead of window attention."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...checkpoints import TakesCheckpoints
from ...upstream import BaseModule, SwinTransformer, WindowMSA, register_backbone
from ..layers import Operator, Site, build_operator
from .arguments import check_flags, check_operator, map_size, to_size


class TokenOperator(BaseModule):
    """An operator instead of a Swin block's window attention.

    Args:
        operator (Operator): Maps (B, C, H, W) to (B, C, H, W).
        drop (nn.Module): The block's drop path.
    """

    def __init__(self, operator: Operator, drop: nn.Module) -> None:
        super().__init__()
        self.operator = operator
        self.drop = drop

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Map tokens (B, H * W, C) to tokens of this shape."""
        out = self.operator(x.transpose(1, 2).unflatten(2, hw_shape))
        return self.drop(out.flatten(2).transpose(1, 2).contiguous())


@register_backbone
class ELSA_Swin(TakesCheckpoints, SwinTransformer):
    """Swin Transformer with an operator instead of the window attention of some stages.

    With the default arguments ELSA-Swin-T (arXiv 2112.12786) for detection: ELSA in stages 1 to 3;
    stage 4 keeps its windows. All arguments of mmdet's ``SwinTransformer`` work as there;
    those of window attention (``window_size``, ``qkv_bias``, ``qk_scale``, ``attn_drop_rate``)
    concern the stages that keep it.

    Args:
        operator (dict, optional): ``type`` and own arguments of the operator, or None for window
            attention everywhere. Defaults to ELSA of ELSA-Swin-T; those of S and B have
            ``group_width=8``.
        stages_with_operator (Sequence[bool]): Stages that have the operator.
        always_shift (bool): Whether every second block shifts its windows on any map, as the
            authors' detectors do. If not, only where the map of an image of ``input_size`` is
            larger than a window, as their classifiers do.
        input_size (int | tuple[int, int]): Nominal image size (H, W) in pixels, or the side of a
            square: of ``always_shift``, and of operators that have position tables.
        **kwargs: Arguments of mmdet's ``SwinTransformer``.

    Raises:
        ValueError: If an argument does not fit the others (one sentence each).

    Example:
        >>> backbone = ELSA_Swin()
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 64, 64))]
        [(1, 96, 16, 16), (1, 192, 8, 8), (1, 384, 4, 4), (1, 768, 2, 2)]
    """

    default_operator = dict(type='ELSA', group_width=4)

    def __init__(
        self,
        *,
        operator: dict[str, Any] | None = default_operator,
        stages_with_operator: Sequence[bool] = (True, True, True, False),
        always_shift: bool = True,
        input_size: int | tuple[int, int] = (1024, 1024),
        **kwargs: Any,
    ) -> None:
        check_operator(operator)
        super().__init__(**kwargs)
        check_flags('stages_with_operator', stages_with_operator, len(self.stages))
        self.operator = operator
        self.stages_with_operator = tuple(stages_with_operator)
        self.input_size = to_size(input_size)
        strides = kwargs.get('strides', (4, 2, 2, 2))
        flags = enumerate(zip(self.stages, self.stages_with_operator, strict=True))
        for index, (stage, replace) in flags:
            feat_size = map_size(self.input_size, strides[: index + 1])
            for block in stage.blocks:
                attention = block.attn
                if replace and operator is not None:
                    block.attn = self._build_operator(attention, feat_size)
                elif not always_shift and min(feat_size) <= attention.window_size:
                    attention.shift_size = 0

    def _build_operator(self, attention: nn.Module, feat_size: tuple[int, int]) -> TokenOperator:
        windows = attention.w_msa
        site = Site(
            in_channels=windows.embed_dims,
            out_channels=windows.embed_dims,
            feat_size=feat_size,
            num_heads=windows.num_heads,
        )
        return TokenOperator(build_operator(self.operator, site), attention.drop)

    def init_weights(self) -> None:
        """Initialize as the authors do, or from a checkpoint, which may be theirs."""
        if self.init_cfg is not None:
            BaseModule.init_weights(self)
            return
        super().init_weights()
        for module in self.modules():  # mmdet's does not initialize them
            if isinstance(module, (Operator, WindowMSA)):
                module.init_weights()

    def train(self, mode: bool = True) -> 'ELSA_Swin':
        """Set the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        return self  # mmdet's returns None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to the maps of the stages in ``out_indices``."""
        return tuple(super().forward(x))  # mmdet's is a list, which mmpretrain's necks refuse
