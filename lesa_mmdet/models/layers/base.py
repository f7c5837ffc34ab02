"""What an operator is, and how a config's operator is built."""

from collections.abc import Mapping

from torch import Tensor

from ...checkpoints.resnet import TakenOver, only_affine
from ...upstream import MODELS, BaseModule
from ...utils.errors import UserValueError


class Operator(BaseModule):
    """A layer that mixes the positions of a map and keeps its size.

    It maps (B, C_in, H, W) to (B, C_out, H, W). Stride, pooling and the norm that follows are the
    business of the block that it stands in.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        raise NotImplementedError

    def from_convolution(
        self, conv: Mapping[str, Tensor], norm: Mapping[str, Tensor], *, zero_init_context: bool
    ) -> TakenOver:
        """What it takes over of the 3x3 convolution in whose place it stands, and of its norm.

        An operator that does not say more takes nothing of the kernel. The norm behind it keeps
        its factors and shifts, which the next layer is used to.

        Args:
            conv (Mapping[str, Tensor]): The convolution's ``weight`` (C_out, C_in, 3, 3), and
                ``conv_offset.*`` if it is deformable.
            norm (Mapping[str, Tensor]): The batch norm's tensors, by their names in it.
            zero_init_context (bool): Whether what the convolution did not have starts silent.
        """
        return TakenOver({}, only_affine(norm), None)


def build_operator(cfg: dict, **kwargs) -> Operator:
    """Build an operator from its config.

    Args:
        cfg (dict): ``type`` (registered name or class) and arguments of its own.
        **kwargs: What its position in the network decides: in_channels, out_channels, feat_size,
            dilation, dcn, norm_cfg. An argument in ``cfg`` comes first.

    Raises:
        ValueError: If ``cfg['type']`` is no operator.
    """
    kind: type | None = cfg.get('type')
    if isinstance(kind, str):
        kind = MODELS.get(kind)
    if not (isinstance(kind, type) and issubclass(kind, Operator)):
        names = sorted(
            name
            for name, known in MODELS.module_dict.items()
            if isinstance(known, type) and issubclass(known, Operator)
        )
        raise UserValueError(
            f'operator type {cfg.get("type")!r} is unknown; available: {", ".join(names)}, '
            'or operator=None for plain convolution'
        )
    return MODELS.build({**kwargs, **cfg, 'type': kind})  # a class: built in any package's scope
