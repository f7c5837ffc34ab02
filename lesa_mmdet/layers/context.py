"""The context (binary) term: what all other places say about a place."""

import torch
from einops import rearrange, reduce
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..attention import attend, attend_flattened, fit_table, relative_logits, similarity_scales
from ..attention.reference import similarity_terms
from ..registry import BaseModule

# Queries whose weights are looked at together: a few MiB for each image on large maps.
QUERIES = 64


class ContextTerm(BaseModule):
    """All-to-all multi-head self-attention with relative positions (paper, equation 1).

    Per head, queries and keys have half the channels of values. A batch norm over the similarity
    terms takes the place of the usual 1 / sqrt(d).

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of 2 * num_heads.
        feat_size (tuple[int, int]): (H, W) of the map the position tables are built for.
        num_heads (int): Number of heads.
        norm_cfg (dict): Config of the norms; the similarity terms need a batch norm.

    Attributes:
        ablate_unary (bool): Whether what each place gives itself is left out of the weighted sum
            of values, as in Table 1 of the paper. The weights of the others stay as they are.
    """

    ablate_unary = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        feat_size: tuple[int, int],
        num_heads: int = 8,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        super().__init__()
        if out_channels % (2 * num_heads):
            raise ValueError(
                f'out_channels has to be a multiple of 2 * num_heads = {2 * num_heads} '
                f'(queries and keys take half the channels of a head), got {out_channels}'
            )
        self.feat_size = tuple(feat_size)
        self.num_heads = num_heads
        self.value_dim = out_channels // num_heads
        self.key_dim = self.value_dim // 2
        self.qkv = nn.Conv2d(in_channels, 2 * out_channels, 1, bias=False)
        self.qkv_norm = build_norm_layer(norm_cfg, 2 * out_channels)[1]

    def init_weights(self) -> None:
        """Initialize the projection from N(0, 1 / C_in), and the position tables."""
        super().init_weights()
        nn.init.normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys (B, heads, H * W, d) and values (B, heads, H * W, 2d) of a map."""
        qkv = self.qkv_norm(self.qkv(x))
        qkv = rearrange(qkv, 'b (n d) h w -> b n (h w) d', n=self.num_heads)
        return qkv.split((self.key_dim, self.key_dim, self.value_dim), dim=-1)

    def factors(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the similarities of a map (B, C_in, H, W) and the values are computed from."""
        raise NotImplementedError

    def weights(self, factors: tuple[Tensor, ...], places: Tensor) -> Tensor:
        """Softmax weights (B, heads, n, H * W) of the queries at n places, given as indices."""
        raise NotImplementedError

    def unary_weights(self, factors: tuple[Tensor, ...]) -> Tensor:
        """Softmax weight (B, heads, H * W) that each place gives itself."""
        blocks = torch.arange(factors[0].shape[2], device=factors[0].device).split(QUERIES)
        diagonals = (
            self.weights(factors, block)[..., block].diagonal(dim1=-2, dim2=-1) for block in blocks
        )
        return torch.cat(tuple(diagonals), dim=-1)

    def _similarity_norm(self, norm_cfg: dict, terms: int) -> _BatchNorm:
        norm = build_norm_layer(norm_cfg, terms * self.num_heads)[1]
        if not isinstance(norm, _BatchNorm):
            raise ValueError(
                "the similarity terms need a batch norm (norm_cfg type 'BN' or 'SyncBN'), "
                f'got {norm_cfg["type"]!r}'
            )
        return norm


class DecomposedContext(ContextTerm):
    """Context term whose positions decompose into rows and columns: any map size, for detection.

    Args:
        backend (str): Backend of :func:`lesa_mmdet.attention.attend`.
        **kwargs: See :class:`ContextTerm`.
    """

    def __init__(self, *args, backend: str = 'auto', norm_cfg: dict = dict(type='BN'), **kwargs):
        super().__init__(*args, norm_cfg=norm_cfg, **kwargs)
        self.backend = backend
        rows, cols = self.feat_size
        self.height = nn.Parameter(torch.randn(2 * rows - 1, self.key_dim) * self.key_dim**-0.5)
        self.width = nn.Parameter(torch.randn(2 * cols - 1, self.key_dim) * self.key_dim**-0.5)
        self.similarity_norm = self._similarity_norm(norm_cfg, terms=2)
        self.output_norm = build_norm_layer(norm_cfg, self.num_heads * self.value_dim)[1]

    def factors(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys, values and position logits that :func:`lesa_mmdet.attention.attend` takes.

        The norm of the similarity terms is folded into queries and position logits.
        """
        rows, cols = x.shape[-2:]
        q, k, v = self.project(x)
        height, width = fit_table(self.height, rows), fit_table(self.width, cols)
        content, position = similarity_scales(self.similarity_norm, q, k, height, width)
        row, col = relative_logits(q * position[:, None, None], height, width)
        q = (q * content[:, None, None]).to(q.dtype)  # scales are never half precision
        return q, k, v, row, col

    def weights(self, factors: tuple[Tensor, ...], places: Tensor) -> Tensor:
        """Softmax weights (B, heads, n, H * W) of the queries at n places, given as indices."""
        q, k, _, row, col = factors
        terms = similarity_terms(q[:, :, places], k, row[:, :, places], col[:, :, places])
        return sum(terms).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W), for any H and W."""
        factors = self.factors(x)
        out = attend(*factors, backend=self.backend)
        if self.ablate_unary:
            out = out - self.unary_weights(factors).unsqueeze(-1) * factors[2]
        return self.output_norm(rearrange(out, 'b n (h w) d -> b (n d) h w', h=x.shape[-2]))


class FlattenedContext(ContextTerm):
    """Context term with one table over flattened offsets: one map size, for ImageNet.

    The values have position embeddings, too; both outputs pass one batch norm and are added.

    Args:
        **kwargs: See :class:`ContextTerm`.
    """

    def __init__(self, *args, norm_cfg: dict = dict(type='BN'), **kwargs):
        super().__init__(*args, norm_cfg=norm_cfg, **kwargs)
        rows, cols = self.feat_size
        channels = 2 * self.key_dim + self.value_dim
        table = torch.randn(channels, 2 * rows * cols - 1) * self.value_dim**-0.5
        self.relative = nn.Parameter(table)
        self.similarity_norm = self._similarity_norm(norm_cfg, terms=3)
        self.output_norm = build_norm_layer(norm_cfg, 2 * self.num_heads * self.value_dim)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W), for H, W = feat_size.

        Raises:
            ValueError: If the map has another size.
        """
        if tuple(x.shape[-2:]) != self.feat_size:
            raise ValueError(
                f"position 'flattened' was built for a map of {self.feat_size}, got "
                f"{tuple(x.shape[-2:])}; position 'decomposed' takes any size"
            )
        q, k, v = self.project(x)
        values, embeddings = attend_flattened(q, k, v, self.relative, self.similarity_norm)
        both = torch.stack((values, embeddings))  # in channels: a value, then its embedding
        both = rearrange(both, 'two b n (h w) d -> b (n d two) h w', h=x.shape[-2])
        return reduce(self.output_norm(both), 'b (c two) h w -> b c h w', 'sum', two=2)


POSITIONS = {'decomposed': DecomposedContext, 'flattened': FlattenedContext}


def build_context(position: str, *args, **kwargs) -> ContextTerm:
    """Build the context term for a kind of position; the other arguments are the class's.

    Raises:
        ValueError: If the kind of position is unknown.
    """
    if position not in POSITIONS:
        raise ValueError(
            f'position {position!r} is unknown; available: {", ".join(map(repr, POSITIONS))}'
        )
    return POSITIONS[position](*args, **kwargs)
