"""ResNet and Wide ResNet whose late stages compute with an operator instead of a convolution."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...checkpoints import TakesCheckpoints
from ...upstream import Bottleneck, ResNet, register_backbone
from ...utils.errors import UserValueError
from ..layers import Operator, Site, build_operator
from ..layers.local import reset_offsets
from .arguments import check_flag, check_flags, check_operator, check_resnet, map_size, to_size

STAGES_WITH_OPERATOR = (False, False, True, True)
FIRST_BLOCK_CONV = (True, True, True, False)
STEM = 4  # its stride


class OperatorBottleneck(Bottleneck):
    """Bottleneck whose 3x3 convolution may give way to an operator.

    The operator keeps the size of its map. The block pools what comes out to the stride of the
    convolution, and norms it unless the operator's own norms have done so.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool: nn.Module | None = None  # where there is an operator

    def init_weights(self) -> None:
        """Start a deformable convolution as a plain one, whatever a backbone's init_cfg did."""
        super().init_weights()
        reset_offsets(self.conv2)

    def put_operator(self, operator: Operator) -> None:
        """Compute with an operator instead of the convolution."""
        self.conv2 = operator
        self.pool = average_pool(self.conv2_stride)
        if operator.is_normed:
            setattr(self, self.norm2_name, nn.Identity())

    @property
    def norm2(self) -> Callable[[Tensor], Tensor]:
        """What mmdet's forward pass calls behind the convolution; behind an operator pool first."""
        norm = getattr(self, self.norm2_name)
        return norm if self.pool is None else lambda x: norm(self.pool(x))


def average_pool(stride: int) -> nn.Module:
    """Average over stride x stride positions, at the border over those that exist.

    It maps (B, C, H, W) to (B, C, ceil(H / stride), ceil(W / stride)), as the strided convolution
    of the shortcut does.
    """
    if stride == 1:
        return nn.Identity()
    return nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)


@register_backbone
class LESA_ResNet(TakesCheckpoints, ResNet):
    """ResNet with an operator instead of the 3x3 convolutions in some stages.

    With the default arguments the detection backbone of the LESA paper (section 4.2), without
    deformable convolution: LESA in stages 3 and 4 but for the first block of stage 3. All
    arguments of mmdet's ``ResNet`` work as there; ``dcn`` and ``stage_with_dcn`` make plain 3x3
    convolutions and the operator's local term deformable.

    Args:
        depth (int): Depth, from {50, 101, 152}; 18 and 34 without an operator only.
        operator (dict, optional): ``type`` and own arguments of the operator, or None for plain
            convolution. Defaults to ``dict(type='LESA')``.
        stages_with_operator (Sequence[bool]): Stages that have the operator.
        first_block_conv (Sequence[bool]): Stages whose first block keeps its convolution.
        input_size (int | tuple[int, int]): Nominal image size (H, W) in pixels, or the side of a
            square. From it and the strides follow the maps that position tables are built for.
        pretrained_conv (bool): Whether operators that a checkpoint does not have are made of the
            convolutions that it has instead, those of any ResNet of this depth and width:
            ``init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')``.
        zero_init_context (bool): Whether what such operators add to the convolution starts at zero,
            and has to be learned.
        **kwargs: Arguments of mmdet's ``ResNet``.

    Raises:
        ValueError: If an argument is wrong or does not fit the others (one sentence each).

    Example:
        >>> backbone = LESA_ResNet(depth=50, input_size=(128, 128))
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 128, 128))]
        [(1, 256, 32, 32), (1, 512, 16, 16), (1, 1024, 8, 8), (1, 2048, 4, 4)]
    """

    arch_settings = {
        depth: (OperatorBottleneck if block is Bottleneck else block, blocks)
        for depth, (block, blocks) in ResNet.arch_settings.items()
    }

    default_operator = dict(type='LESA')

    def __init__(
        self,
        depth: int,
        *,
        operator: dict[str, Any] | None = default_operator,
        stages_with_operator: Sequence[bool] = STAGES_WITH_OPERATOR,
        first_block_conv: Sequence[bool] = FIRST_BLOCK_CONV,
        input_size: int | tuple[int, int] = (1024, 1024),
        pretrained_conv: bool = False,
        zero_init_context: bool = True,
        **kwargs: Any,
    ) -> None:
        num_stages = check_resnet(depth, list(self.arch_settings), kwargs)
        check_operator(operator)
        for name, flags, default in (
            ('stages_with_operator', stages_with_operator, STAGES_WITH_OPERATOR),
            ('first_block_conv', first_block_conv, FIRST_BLOCK_CONV),
        ):
            # The defaults are for all stages that there can be.
            check_flags(name, flags[:num_stages] if flags == default else flags, num_stages)
        check_flag('pretrained_conv', pretrained_conv)
        check_flag('zero_init_context', zero_init_context)
        self.operator = operator
        self.stages_with_operator = tuple(stages_with_operator)
        self.first_block_conv = tuple(first_block_conv)
        self.input_size = to_size(input_size)
        self.pretrained_conv = pretrained_conv
        self.zero_init_context = zero_init_context
        self._from_scratch = not (kwargs.get('init_cfg') or kwargs.get('pretrained'))
        super().__init__(depth, **kwargs)

    def make_res_layer(self, **kwargs: Any) -> nn.Module:
        """Build a stage, then put the operator into its blocks."""
        stage = len(self.res_layers)
        bottleneck = issubclass(kwargs['block'], Bottleneck)
        if bottleneck and self.zero_init_residual and self._from_scratch:
            # mmdet's ResNet does so for its own class alone, not for those derived from it.
            kwargs['init_cfg'] = dict(type='Constant', val=0, override=dict(name='norm3'))
        layer = super().make_res_layer(**kwargs)
        replace = self.operator is not None and self.stages_with_operator[stage]
        if replace and not bottleneck:
            raise UserValueError(
                f'stage {stage + 1} of depth {self.depth} has {kwargs["block"].__name__}s, but an '
                "operator replaces a Bottleneck's 3x3 convolution: use depth 50, 101 "
                'or 152, or operator=None'
            )
        for index, block in enumerate(layer if replace else ()):
            if index == 0 and self.first_block_conv[stage]:
                continue
            stride = block.conv1_stride if index == 0 else kwargs['stride']
            site = Site(
                in_channels=block.planes,
                out_channels=block.planes,
                feat_size=map_size(self.input_size, (STEM, *self.strides[:stage], stride)),
                dilation=block.dilation,
                dcn=block.dcn,
                norm_cfg=block.norm_cfg,
            )
            block.put_operator(build_operator(self.operator, site))
        return layer

    def train(self, mode: bool = True) -> 'LESA_ResNet':
        """Set the mode; frozen stages, and norms if ``norm_eval``, stay in evaluation mode."""
        super().train(mode)
        return self  # mmdet's returns None


class WideBottleneck(OperatorBottleneck):
    """Bottleneck of the doubled inner width: the same outputs, so half the expansion."""

    expansion = 2


@register_backbone
class LESA_WRN(LESA_ResNet):
    """Wide ResNet with an operator: every bottleneck's inner width is doubled, its output is not.

    Args:
        depth (int): Depth, from {50, 101, 152}.
        base_channels (int): Base channels of the ResNet of the same outputs.
        stem_channels (int, optional): Channels of the stem. Defaults to ``base_channels``.
        **kwargs: See :class:`LESA_ResNet`.
    """

    arch_settings = {
        depth: (WideBottleneck, LESA_ResNet.arch_settings[depth][1]) for depth in (50, 101, 152)
    }

    def __init__(
        self,
        depth: int,
        *,
        base_channels: int = 64,
        stem_channels: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            depth,
            base_channels=2 * base_channels,
            stem_channels=stem_channels or base_channels,
            **kwargs,
        )
