"""What an operator is, and how a config's operator is built."""

from typing import Optional

from torch import Tensor, nn

from ..upstream import MODELS, BaseModule


class Operator(BaseModule):
    """A layer in the place of a bottleneck's 3x3 convolution.

    It maps (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride)): at full resolution
    first, then averaged over stride x stride places, the border over those that exist. A subclass
    implements :meth:`operate`, the first half.

    Attributes:
        with_norm (bool): Whether the output is normalized already, so that the bottleneck's own
            norm after the convolution goes.
    """

    with_norm = False

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        # As the strided convolution of the shortcut, the pooling keeps an odd border.
        self.pool = (
            nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
            if stride > 1
            else nn.Identity()
        )

    def operate(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        return self.pool(self.operate(x))


def build_operator(cfg: dict, **kwargs) -> Operator:
    """Build an operator from its config.

    Args:
        cfg (dict): ``type`` (registered name or class) and arguments of its own.
        **kwargs: What its place in the network says: in_channels, out_channels, feat_size,
            stride, dilation, dcn, norm_cfg. An argument in ``cfg`` comes first.

    Raises:
        ValueError: If ``cfg['type']`` is no operator.
    """
    kind: Optional[type] = cfg.get('type')
    if isinstance(kind, str):
        kind = MODELS.get(kind)
    if not (isinstance(kind, type) and issubclass(kind, Operator)):
        names = sorted(
            name
            for name, known in MODELS.module_dict.items()
            if isinstance(known, type) and issubclass(known, Operator)
        )
        raise ValueError(
            f'operator type {cfg.get("type")!r} is unknown; available: {", ".join(names)}, '
            'or operator=None for plain convolution'
        )
    return MODELS.build({**kwargs, **cfg, 'type': kind})  # a class: built in any package's scope
