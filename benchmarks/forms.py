"""The forms that are compared: ours, the dense definition, and what a user would take instead."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from lesa_mmdet import LESA, LESA_WRN, LESA_ResNet
from lesa_mmdet.attention import attend, fit_table, relative_logits
from lesa_mmdet.attention.decomposed.reference import (
    attend_flattened_normalized,
    attend_normalized,
)
from lesa_mmdet.models.layers.context import POSITIONS, DecomposedContext, FlattenedContext

HEADS = 8
FORMS = {
    'attention': ['auto', 'reference', 'chunked', 'one-hot sdpa', 'flex'],
    'operator': ['auto', 'reference', 'dense'],
    'backbone': ['auto', 'reference', 'conv'],
}


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        part (str): 'attention', 'operator' or 'backbone'.
        size (int): Side of the map in positions; of a backbone, of its stage 3.
        channels (int): Channels of the operator: each of 8 heads has 1/16 of them for queries and
            keys, 1/8 for values. Of a backbone those of stage 3: 256 is R50, 512 is WRN50.
        form (str): How it is computed.
        training (bool): Whether norms use the statistics of the batch.
        backward (bool): Whether forward + backward is measured, too.
        dtype (str): Of the attention's inputs; of the other parts, autocast's.
        batch (int): Images.
        device (str): 'cpu' or 'cuda'.
    """

    part: str
    size: int
    channels: int
    form: str
    training: bool = False
    backward: bool = True
    dtype: str = 'float32'
    batch: int = 1
    device: str = 'cpu'

    def __str__(self) -> str:
        norms = (
            '' if self.part == 'attention' else f', norms {"train" if self.training else "eval"}'
        )
        return (
            f'{self.part} {self.size} x {self.size}, C {self.channels}{norms}, '
            f'{self.dtype}, batch {self.batch}'
        )

    @property
    def head_channels(self) -> tuple[int, int]:
        """Of queries and keys, and of values."""
        return self.channels // HEADS // 2, self.channels // HEADS

    @property
    def dense_bytes(self) -> int:
        """About what the similarity matrices of a dense form take."""
        matrices = {'reference': 3, 'dense': 8}.get(self.form, 0)
        if self.part == 'backbone':  # each of six large layers keeps the softmax's output
            matrices *= 3
        return matrices * self.batch * HEADS * self.size**4 * 4


def build(case: Case) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """What computes a case, and what it is differentiated by."""
    torch.manual_seed(0)
    return BUILDERS[case.part](case)


def _build_attention(case: Case) -> tuple[Callable, list[Tensor]]:
    d, dv = case.head_channels
    options = dict(device=case.device, dtype=getattr(torch, case.dtype))
    # Views of a projection's output, as in the operator.
    qkv = torch.randn(case.batch, HEADS, 2 * d + dv, case.size**2, **options) * d**-0.25
    row, col = torch.randn(2, case.batch, HEADS, case.size**2, case.size, **options)
    q, k, v = qkv.transpose(-1, -2).split((d, d, dv), dim=-1)
    inputs = [x.detach().requires_grad_(case.backward) for x in (q, k, v, row, col)]
    if case.form == 'one-hot sdpa':
        return lambda: attend_onehot(*inputs), inputs
    if case.form == 'flex':
        return lambda: attend_flex(*inputs), inputs
    return lambda: attend(*inputs, backend=case.form), inputs


def _build_operator(case: Case) -> tuple[Callable, list[Tensor]]:
    form = dict(position='dense') if case.form == 'dense' else dict(backend=case.form)
    size = dict(feat_size=(case.size, case.size), num_heads=HEADS)
    operator = LESA(case.channels, case.channels, **size, **form)
    operator.train(case.training)
    image = torch.randn(case.batch, case.channels, case.size, case.size, requires_grad=True)
    return _differentiable(case, operator, image)


def _build_backbone(case: Case) -> tuple[Callable, list[Tensor]]:
    side = 16 * case.size
    backbone = {256: LESA_ResNet, 512: LESA_WRN}[case.channels](
        50,
        operator=None if case.form == 'conv' else dict(type='LESA', backend=case.form),
        input_size=(side, side),
        frozen_stages=1,
        norm_eval=not case.training,
    )
    backbone.train()
    return _differentiable(case, backbone, torch.randn(case.batch, 3, side, side))


def _differentiable(case: Case, module: nn.Module, image: Tensor) -> tuple[Callable, list[Tensor]]:
    module, image = module.to(case.device), image.to(case.device)
    inputs = [x for x in (image, *module.parameters()) if x.requires_grad]
    half = case.dtype != 'float32'

    def forward() -> Tensor:
        with torch.autocast(case.device, getattr(torch, case.dtype)) if half else nullcontext():
            out = module(image)
        return out if isinstance(out, Tensor) else sum(x.sum() for x in out)

    return forward, inputs


BUILDERS = dict(attention=_build_attention, operator=_build_operator, backbone=_build_backbone)


def attend_onehot(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Positions as further channels: row and col meet the one-hot row and column of each key."""
    rows, cols = row.shape[-1], col.shape[-1]
    position = torch.arange(rows * cols, device=q.device)
    onehot = torch.cat((F.one_hot(position // cols, rows), F.one_hot(position % cols, cols)), -1)
    query = torch.cat((q, row, col), -1)
    key = torch.cat((k, onehot.to(k.dtype).expand(*k.shape[:2], -1, -1)), -1)
    value = F.pad(v, (0, max(0, query.shape[-1] - v.shape[-1])))  # the fast kernels want one width
    out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out[..., : v.shape[-1]]


def attend_flex(q: Tensor, k: Tensor, v: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Positions as flex_attention's change of scores, compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    cols = col.shape[-1]

    def add_position(score, b, h, i, j):
        return score + row[b, h, i, j // cols] + col[b, h, i, j % cols]

    compiled = torch.compile(flex_attention, dynamic=False)
    return compiled(q, k, v, score_mod=add_position, scale=1.0)


class DenseContext(DecomposedContext):
    """The context term as its definition reads: all similarity terms are built and normalized."""

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        q, k, v = self.project(x)
        height, width = fit_table(self.height, rows), fit_table(self.width, cols)
        row, col = relative_logits(q, height, width)
        out = attend_normalized(q, k, v, row, col, self.similarity_norm)
        return self.output_norm(rearrange(out, 'b n (h w) d -> b (n d) h w', h=rows))


class DenseFlattenedContext(FlattenedContext):
    """Likewise with flattened positions."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = attend_flattened_normalized(*self.project(x), self.relative, self.similarity_norm)
        both = rearrange(torch.stack(outputs), 'two b n (h w) d -> b (n d two) h w', h=x.shape[-2])
        return reduce(self.output_norm(both), 'b (c two) h w -> b c h w', 'sum', two=2)


# For configs: LESA(..., position='dense').
POSITIONS.update({'dense': DenseContext, 'flattened-dense': DenseFlattenedContext})
