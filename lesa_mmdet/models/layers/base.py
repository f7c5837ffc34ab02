"""What an operator is, what it says of itself, and how a config's operator is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from ...checkpoints.resnet import TakenOver, only_affine
from ...upstream import MODELS, BaseModule
from ...utils.errors import UserValueError


@dataclass(frozen=True)
class Site:
    """What the block that an operator stands in decides.

    Attributes:
        in_channels (int): Channels of the map that comes in.
        out_channels (int): Channels of the map that goes out.
        feat_size (tuple[int, int]): (H, W) of the map in an image of the nominal size.
        num_heads (int, optional): Heads of the attention that the operator replaces, if any.
        dilation (int): Dilation of the convolution that it replaces.
        dcn (dict, optional): Config of the deformable convolution that it replaces, if it is one.
        norm_cfg (dict): Config of the block's norms.
    """

    in_channels: int
    out_channels: int
    feat_size: tuple[int, int]
    num_heads: int | None = None
    dilation: int = 1
    dcn: dict[str, Any] | None = None
    norm_cfg: dict[str, Any] = field(default_factory=lambda: dict(type='BN'))


class Attended(NamedTuple):
    """Where a position looks.

    Attributes:
        weights (Tensor): What it weighs the positions of its map with, shape (heads, H, W).
        fixed (Tensor, optional): Magnitude of what is added to them, the same for all positions.
    """

    weights: Tensor
    fixed: Tensor | None = None


class Probe(NamedTuple):
    """A number that can be read off while an operator computes.

    Attributes:
        part (nn.Module): The operator or a part of it.
        read (Callable): Takes the inputs (a tuple) and the output of the part; returns the number.
    """

    part: nn.Module
    read: Callable[[tuple[Tensor, ...], Tensor], Tensor]


class Operator(BaseModule):
    """A layer that mixes the positions of a map and keeps its size.

    It maps (B, C_in, H, W) to (B, C_out, H, W). Stride, pooling and the norm that follows are the
    business of the block that it stands in. What others have to know of an operator it says itself:
    blocks and :mod:`lesa_mmdet.analysis` ask for the properties below. To torch.fx it is a leaf.

    Attributes:
        reads (tuple[str, ...]): Arguments other than channels that it takes from its :class:`Site`.
    """

    reads: tuple[str, ...] = ()

    @property
    def is_normed(self) -> bool:
        """Whether the output is normed, so that the block's own norm would undo something."""
        return False

    @property
    def position_tables(self) -> list[nn.Parameter]:
        """Parameters that belong to relative positions."""
        return []

    @property
    def local_conv(self) -> nn.Module | None:
        """The convolution, plain or deformable, that samples the surroundings of a position."""
        return None

    @property
    def omega(self) -> Probe | None:
        """Weight (B, C, H, W) of the context term where each position decides it."""
        return None

    @property
    def unary_share(self) -> Probe | None:
        """How much of its output a position says itself, in [0, 1], shape (B, ...)."""
        return None

    def look(self, x: Tensor) -> Callable[[int, int], Attended] | None:
        """Where the positions of a map look.

        Args:
            x (Tensor): Input of the operator, shape (1, C_in, H, W).

        Returns:
            Callable | None: Takes the row and the column of a position. What all positions have in
            common is computed here, once, and held as arguments of a ``functools.partial``. None
            if no position weighs others.
        """
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        raise NotImplementedError

    def from_convolution(
        self, conv: Mapping[str, Tensor], norm: Mapping[str, Tensor], *, zero_init_context: bool
    ) -> TakenOver:
        """What it takes over of the 3x3 convolution that it replaces, and of its norm.

        An operator that does not say more takes nothing of the kernel. The norm behind it keeps
        its factors and shifts, which the next layer is used to.

        Args:
            conv (Mapping[str, Tensor]): The convolution's ``weight`` (C_out, C_in, 3, 3), and
                ``conv_offset.*`` if it is deformable, and ``inputs`` (n, C_in, 3, 3), what it sees,
                if that is known.
            norm (Mapping[str, Tensor]): The batch norm's tensors, by their names in it.
            zero_init_context (bool): Whether what the convolution did not have starts silent.
        """
        return TakenOver({}, only_affine(norm), None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute, or under torch.fx become a node of the graph: sizes are only known later."""
        proxies = [x for x in args if isinstance(x, fx.Proxy)]
        if not proxies:
            return super().__call__(*args, **kwargs)
        tracer = proxies[0].tracer

        def become_a_leaf(*args: Any, **kwargs: Any) -> fx.Proxy:
            return tracer.create_proxy('call_module', tracer.path_of_module(self), args, kwargs)

        return tracer.call_module(self, become_a_leaf, args, kwargs)


def build_operator(cfg: Mapping[str, Any], site: Site) -> Operator:
    """Build an operator from its config.

    Args:
        cfg (Mapping[str, Any]): ``type`` (registered name or class) and arguments of its own, which
            come before those that it reads from its site.
        site (Site): Where it will stand.

    Raises:
        ValueError: If ``cfg['type']`` is no operator.
    """
    kind = cfg.get('type')
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
    read = {name: getattr(site, name) for name in ('in_channels', 'out_channels', *kind.reads)}
    read = {name: value for name, value in read.items() if value is not None}
    return MODELS.build({**read, **cfg, 'type': kind})  # a class: built in any package's scope
