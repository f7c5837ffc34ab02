"""The context (binary) term: self-attention of every position to all positions of the map."""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...attention import (
    BACKENDS,
    attend,
    attend_flattened,
    check_backend,
    decomposed_weights,
    fit_table,
    flattened_scales,
    flattened_weights,
    pairwise_embeddings,
    relative_logits,
    similarity_scales,
)
from ...attention.precision import without_autocast
from ...upstream import BaseModule
from ...utils.errors import UserValueError
from .base import Attended, Operator
from .norm import build_norm, normed_conv
from .recompute import recomputed

# Queries whose weights are looked at together: a few MiB for each image on large maps.
QUERIES = 64


class DecomposedInputs(NamedTuple):
    """What :func:`lesa_mmdet.attention.attend` takes, in its order."""

    q: Tensor
    k: Tensor
    v: Tensor
    row: Tensor
    col: Tensor


class FlattenedInputs(NamedTuple):
    """What :func:`lesa_mmdet.attention.attend_flattened` takes, in its order."""

    q: Tensor
    k: Tensor
    v: Tensor
    query: Tensor
    key: Tensor
    of_query: Tensor
    of_key: Tensor
    of_value: Tensor


class ContextTerm(BaseModule):
    """All-to-all multi-head self-attention with relative positions (paper, equation 1).

    A batch norm over the similarity terms replaces the usual factor 1 / sqrt(d).

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 2 * num_heads.
        feat_size (tuple[int, int]): (H, W) of the map the position tables are built for.
        num_heads (int): Number of heads.
        norm_cfg (dict): Config of the norms; the similarity terms need a batch norm.
        key_dim (int, optional): Channels of the queries and keys of a head. Defaults to half of
            those of the values.

    Attributes:
        ablate_unary (bool): Whether each position's weight for itself counts as zero in the sum
            of values, as in Table 1 of the paper. The other weights stay the same.
    """

    ablate_unary = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        feat_size: tuple[int, int],
        num_heads: int,
        norm_cfg: dict[str, Any] | None,
        key_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_heads(num_heads)
        if key_dim is None and out_channels % (2 * num_heads):
            raise UserValueError(
                f'out_channels has to be a multiple of 2 * num_heads = {2 * num_heads} '
                f'(queries and keys take half the channels of a head), got {out_channels}'
            )
        self.feat_size = tuple(feat_size)
        self.num_heads = num_heads
        self.value_dim = out_channels // num_heads
        self.key_dim = key_dim or self.value_dim // 2
        channels = num_heads * (2 * self.key_dim + self.value_dim)
        self.qkv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.qkv_norm = build_norm(norm_cfg, channels)

    def init_weights(self) -> None:
        """Initialize the projection from N(0, 1 / C_in), and the position tables."""
        super().init_weights()
        nn.init.normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)
        self.init_positions()

    def init_positions(self) -> None:
        """Initialize the position tables."""
        raise NotImplementedError

    @property
    def position_tables(self) -> list[nn.Parameter]:
        """Parameters that belong to relative positions."""
        raise NotImplementedError

    def silent(self, name: str) -> dict[str, Tensor]:
        """Tensors, for a state dict with it under a name, with which its output is 0 at first."""
        norm = self.output_norm
        return {
            f'{name}.output_norm.weight': torch.zeros_like(norm.weight),
            f'{name}.output_norm.bias': torch.zeros_like(norm.bias),
        }

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys (B, heads, H * W, d) and values (B, heads, H * W, 2d) of a map."""
        qkv = normed_conv(x, self.qkv, self.qkv_norm)
        qkv = rearrange(qkv, 'b (n d) h w -> b n (h w) d', n=self.num_heads)
        return qkv.split((self.key_dim, self.key_dim, self.value_dim), dim=-1)

    def factors(self, x: Tensor) -> NamedTuple:
        """Inputs of the attention for a map (B, C_in, H, W), with the fields q, k, v and others."""
        raise NotImplementedError

    def weights(self, factors: NamedTuple, queries: Tensor) -> Tensor:
        """Softmax weights (B, heads, n, H * W) of the queries at n positions, given as indices."""
        raise NotImplementedError

    def unary_weights(self, factors: NamedTuple) -> Tensor:
        """Softmax weight (B, heads, H * W) of each position for itself."""
        blocks = torch.arange(factors.q.shape[2], device=factors.q.device).split(QUERIES)
        diagonals = (
            self.weights(factors, block)[..., block].diagonal(dim1=-2, dim2=-1) for block in blocks
        )
        return torch.cat(tuple(diagonals), dim=-1)

    def look(self, x: Tensor) -> Callable[[int, int], Attended]:
        """Where the positions of a map (1, C_in, H, W) look, by row and column."""
        return partial(self._look_from, self.factors(x), x.shape[-2:])

    def _look_from(self, factors: NamedTuple, shape: torch.Size, row: int, col: int) -> Attended:
        query = torch.tensor([row * shape[1] + col], device=factors.q.device)
        return Attended(self.weights(factors, query)[0, :, 0].unflatten(-1, shape))

    def _similarity_norm(self, norm_cfg: dict[str, Any] | None, terms: int) -> nn.Module:
        """Norm of so many similarity terms of each head, side by side as channels."""
        norm = build_norm(norm_cfg, terms * self.num_heads)
        if not isinstance(norm, (_BatchNorm, nn.Identity)):
            raise UserValueError(
                "the similarity terms need a batch norm (norm_cfg type 'BN' or 'SyncBN'), "
                f'got {norm_cfg["type"]!r}'
            )
        return norm


class DecomposedContext(ContextTerm):
    """Context term whose positions decompose into rows and columns: any map size, for detection.

    Args:
        norm_cfg (dict, optional): Config of the norms, or None for the usual attention: no norms,
            and similarities divided by sqrt(d).
        backend (str): Backend of :func:`lesa_mmdet.attention.attend`.
        **kwargs: See :class:`ContextTerm`.

    Raises:
        ValueError: If there is no such backend.
    """

    def __init__(
        self, *args: Any, norm_cfg: dict[str, Any] | None, backend: str = 'auto', **kwargs: Any
    ) -> None:
        super().__init__(*args, norm_cfg=norm_cfg, **kwargs)
        check_backend(backend, BACKENDS)
        self.backend = backend
        rows, cols = self.feat_size
        self.height = nn.Parameter(torch.empty(2 * rows - 1, self.key_dim))
        self.width = nn.Parameter(torch.empty(2 * cols - 1, self.key_dim))
        self.init_positions()
        self.similarity_norm = self._similarity_norm(norm_cfg, terms=2)
        self.output_norm = build_norm(norm_cfg, self.num_heads * self.value_dim)

    @property
    def position_tables(self) -> list[nn.Parameter]:
        """Those of vertical and of horizontal offsets."""
        return [self.height, self.width]

    def init_positions(self) -> None:
        """Initialize the position tables from N(0, 1 / d), d being the channels of a query."""
        for table in self.position_tables:
            nn.init.normal_(table, std=self.key_dim**-0.5)

    def factors(self, x: Tensor) -> DecomposedInputs:
        """Inputs of the attention for a map (B, C_in, H, W).

        The norm of the similarity terms is folded into queries and position logits.
        """
        q, k, v, *scaling = self._parts(x)
        q, row, col = _scaled_queries_and_logits(q, *scaling)
        return DecomposedInputs(q, k, v, row, col)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, scales (2, heads) of both terms, and the map's tables."""
        rows, cols = x.shape[-2:]
        q, k, v = self.project(x)
        height, width = fit_table(self.height, rows), fit_table(self.width, cols)
        if isinstance(self.similarity_norm, nn.Identity):
            scales = q.new_full((2, self.num_heads), self.key_dim**-0.5)
        else:
            scales = torch.stack(
                tuple(similarity_scales(self.similarity_norm, q, k, height, width))
            )
        return q, k, v, scales, height, width

    def weights(self, factors: DecomposedInputs, queries: Tensor) -> Tensor:
        """Softmax weights (B, heads, n, H * W) of the queries at n positions, given as indices."""
        q, row, col = (x[:, :, queries] for x in (factors.q, factors.row, factors.col))
        return decomposed_weights(q, factors.k, row, col)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W), for any H and W."""
        q, k, v, *scaling = self._parts(x)
        again = [part.detach() for part in (q, *scaling)]
        q, row, col = _scaled_queries_and_logits(q, *scaling)
        factors = DecomposedInputs(q, k, v, row, col)
        # For small heads row and col take more than all else that attention keeps.
        with recomputed((q, row, col), lambda: _scaled_queries_and_logits(*again)):
            out = attend(*factors, backend=self.backend)
        if self.ablate_unary:
            out = out - self.unary_weights(factors).unsqueeze(-1) * factors.v
        return self.output_norm(rearrange(out, 'b n (h w) d -> b (n d) h w', h=x.shape[-2]))


def _scaled_queries_and_logits(
    q: Tensor, scales: Tensor, height: Tensor, width: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries that meet the keys, and position logits, from queries and scales (2, heads).

    Autocast makes no difference, so that the backward pass gets the same again.
    """
    with without_autocast(q.device):
        # Scales are float32 or wider; attention takes tensors of one dtype.
        content, position = ((q * scale[:, None, None]).to(q.dtype) for scale in scales)
        row, col = relative_logits(position, height.to(q.dtype), width.to(q.dtype))
    return content, row, col


class FlattenedContext(ContextTerm):
    """Context term with one table over flattened offsets: one map size, for ImageNet.

    The values have position embeddings as well; both outputs pass one batch norm and are added.

    Args:
        **kwargs: See :class:`ContextTerm`.

    Raises:
        ValueError: If there is no config of the norms.
    """

    def __init__(self, *args: Any, norm_cfg: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, norm_cfg=norm_cfg, **kwargs)
        if not norm_cfg:
            raise UserValueError("position 'flattened' needs a batch norm, got norm_cfg=None")
        rows, cols = self.feat_size
        channels = 2 * self.key_dim + self.value_dim
        self.relative = nn.Parameter(torch.empty(channels, 2 * rows * cols - 1))
        self.init_positions()
        self.similarity_norm = self._similarity_norm(norm_cfg, terms=3)
        self.output_norm = build_norm(norm_cfg, 2 * self.num_heads * self.value_dim)

    @property
    def position_tables(self) -> list[nn.Parameter]:
        """That of flattened offsets."""
        return [self.relative]

    def init_positions(self) -> None:
        """Initialize the position table from N(0, 1 / dv), dv being the channels of a value."""
        nn.init.normal_(self.relative, std=self.value_dim**-0.5)

    def factors(self, x: Tensor) -> FlattenedInputs:
        """Inputs of the attention for a map (B, C_in, H, W), the similarity norm folded in.

        Raises:
            ValueError: If the map is not of feat_size.
        """
        if tuple(x.shape[-2:]) != self.feat_size:
            raise UserValueError(
                f"position 'flattened' was built for a map of {self.feat_size}, got "
                f"{tuple(x.shape[-2:])}; position 'decomposed' takes any size"
            )
        q, k, v = (part.contiguous() for part in self.project(x))  # as matrix products want them
        scales = flattened_scales(self.similarity_norm, q, k, self.relative)
        content, query, key = (scale[:, None, None] for scale in scales)
        embeddings = pairwise_embeddings(self.relative, self.key_dim)
        return FlattenedInputs(q * content, k, v, q * query, k * key, *embeddings)

    def weights(self, factors: FlattenedInputs, queries: Tensor) -> Tensor:
        """Softmax weights (B, heads, n, H * W) of the queries at n positions, given as indices."""
        return flattened_weights(
            factors.q[:, :, queries],
            factors.k,
            factors.query[:, :, queries],
            factors.key,
            factors.of_query[queries],
            factors.of_key[:, queries],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W), for H, W = feat_size.

        Raises:
            ValueError: If the map has another size.
        """
        factors = self.factors(x)
        values, embeddings = attend_flattened(*factors)
        if self.ablate_unary:
            unary = self.unary_weights(factors).unsqueeze(-1)
            values = values - unary * factors.v
            embeddings = embeddings - unary * factors.of_value[0, 0]  # that of the offset 0
        both = torch.stack((values, embeddings))  # in channels: a value, then its embedding
        both = rearrange(both, 'two b n (h w) d -> b (n d two) h w', h=x.shape[-2])
        return reduce(self.output_norm(both), 'b (c two) h w -> b c h w', 'sum', two=2)


class ContextOperator(Operator):
    """An operator that has a context term.

    Attributes:
        context (ContextTerm): The term, which has the position tables and looks at the map.
    """

    context: ContextTerm

    @property
    def position_tables(self) -> list[nn.Parameter]:
        """Those of the context term."""
        return self.context.position_tables

    def look(self, x: Tensor) -> Callable[[int, int], Attended]:
        """Where the context term looks."""
        return self.context.look(x)


def check_heads(num_heads: int) -> None:
    """Check a number of heads, before anything is divided by it.

    Raises:
        ValueError: If it is no whole number from 1 on.
    """
    if not isinstance(num_heads, Integral) or isinstance(num_heads, bool) or num_heads < 1:
        raise UserValueError(f'num_heads is {num_heads!r}, but has to be a whole number from 1 on')


POSITIONS = {'decomposed': DecomposedContext, 'flattened': FlattenedContext}


def build_context(
    *args: Any,
    position: str = 'decomposed',
    num_heads: int = 8,
    norm_cfg: dict[str, Any] = dict(type='BN'),
    **kwargs: Any,
) -> ContextTerm:
    """Build the context term for a kind of position; the other arguments are the class's.

    Raises:
        ValueError: If the kind of position is unknown.
    """
    if position not in POSITIONS:
        raise UserValueError(
            f'position {position!r} is unknown; available: {", ".join(map(repr, POSITIONS))}'
        )
    return POSITIONS[position](*args, num_heads=num_heads, norm_cfg=norm_cfg, **kwargs)
