"""ELSA: attention over each position's neighbourhood, from products of queries and keys."""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...attention import NEIGHBORHOOD_BACKENDS, attend_neighborhood, check_backend
from ...checkpoints.resnet import TakenOver, decompose_depthwise
from ...upstream import MODELS
from ...utils.errors import UserValueError
from .base import Attended, Operator
from .context import check_heads


@MODELS.register_module()
class ELSA(Operator):
    """Enhanced Local Self-Attention (arXiv 2112.12786), as its authors' code computes it.

    The weights of a position's k x k neighbours come from the elementwise product of its query and
    key ("Hadamard attention"): a k x k convolution, GELU and a 1x1 convolution make logits of it,
    softmax a head makes weights. A neighbour outside the map has the value zero and keeps its share
    of the softmax. Two fixed k x k matrices a channel join them (the "ghost head")::

        out[c, i] = sum over o of (mul[c, o] ** lam * weights[g, o, i] + gamma * add[c, o])
                                  * v[c, i + o],   g: the head of channel c

    ELSA-Swin has lam 0 and gamma 1, so ``add`` alone.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output and of the values, a multiple of num_heads.
        num_heads (int): Heads, each of contiguous channels.
        kernel_size (int): The k of the window, odd.
        dilation (int): Distance between neighbours.
        group_width (int): Channels of a group of the k x k convolution.
        key_ratio (float): Channels of the queries, and of the keys, by out_channels: the fraction
            n / m of them is ``out_channels // m * n``, rounded up to a multiple of group_width.
        qkv_bias (bool): Whether the projection to queries, keys and values has a bias.
        qk_scale (float): Factor of the products.
        lam (float): Power of the factors ``mul``. With 0 there are none; with a fraction they start
            positive, and the power of one that turns negative is not a number.
        gamma (float): Factor of ``add``. With 0 there is no ``add``.
        backend (str): Of :func:`lesa_mmdet.attention.attend_neighborhood`.

    Raises:
        ValueError: If channels and heads do not fit, a size or ratio is out of range, or there is
            no such backend.
    """

    reads = ('num_heads', 'dilation')

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_heads: int = 8,
        kernel_size: int = 7,
        dilation: int = 1,
        group_width: int = 8,
        key_ratio: float = 2 / 3,
        qkv_bias: bool = True,
        qk_scale: float = 1.0,
        lam: float = 0.0,
        gamma: float = 1.0,
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        check_heads(num_heads)
        if out_channels % num_heads:
            raise UserValueError(
                f'out_channels has to be a multiple of num_heads = {num_heads}, got {out_channels}'
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserValueError(f'kernel_size has to be odd, 1 or more, got {kernel_size}')
        if dilation < 1:
            raise UserValueError(f'dilation has to be 1 or more, got {dilation}')
        check_backend(backend, NEIGHBORHOOD_BACKENDS)
        self.num_heads = num_heads
        self.dilation = dilation
        self.qk_scale = qk_scale
        self.lam = lam
        self.gamma = gamma
        self.backend = backend
        key_channels = _key_channels(out_channels, key_ratio, group_width)
        self.splits = (key_channels, key_channels, out_channels)
        self.qkv = nn.Conv2d(in_channels, sum(self.splits), 1, bias=qkv_bias)
        self.surroundings = nn.Conv2d(
            key_channels,
            key_channels,
            kernel_size,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            groups=key_channels // group_width,
        )
        self.logits = nn.Conv2d(key_channels, num_heads * kernel_size**2, 1)
        matrices = (out_channels, kernel_size, kernel_size)
        self.mul = nn.Parameter(torch.empty(matrices)) if lam else None
        self.add = nn.Parameter(torch.empty(matrices)) if gamma else None
        self.project = nn.Conv2d(out_channels, out_channels, 1)
        self._reset()

    def init_weights(self) -> None:
        """Draw all parameters anew, whatever a backbone's init_cfg did."""
        super().init_weights()
        self._reset()

    def _reset(self) -> None:
        for conv in (self.qkv, self.surroundings, self.logits):
            conv.reset_parameters()
        if self.mul is not None:
            nn.init.normal_(self.mul)
            if not float(self.lam).is_integer():
                self.mul.data.abs_()
        if self.add is not None:
            nn.init.trunc_normal_(self.add, std=0.02)
        nn.init.trunc_normal_(self.project.weight, std=0.02)
        nn.init.zeros_(self.project.bias)

    def from_convolution(
        self, conv: Mapping[str, Tensor], norm: Mapping[str, Tensor], *, zero_init_context: bool
    ) -> TakenOver:
        """Values, ``add`` and the last projection take the kernel over, a filter for each channel.

        With ``zero_init_context`` the weights of all neighbours are equal at first, and ``add``
        makes up for them. Without ``add``, or a window that holds the kernel, all starts fresh.
        """
        margin = (self.surroundings.kernel_size[0] - 3) // 2
        if self.add is None or margin < 0:
            return super().from_convolution(conv, norm, zero_init_context=zero_init_context)
        values, filters, project, energy = decompose_depthwise(conv['weight'], self.splits[-1])
        values, filters = values.to(self.qkv.weight), filters.to(self.add)
        add = F.pad(filters, [margin] * 4) / self.gamma
        state = {
            'qkv.weight': torch.cat((self.qkv.weight[: -len(values)], values[..., None, None])),
            'project.weight': project[..., None, None],
            'project.bias': torch.zeros_like(self.project.bias),
        }
        if self.qkv.bias is not None:
            bias = self.qkv.bias
            state['qkv.bias'] = torch.cat((bias[: -len(values)], bias.new_zeros(len(values))))
        if zero_init_context:
            for leaf, parameter in self.logits.named_parameters():
                state[f'logits.{leaf}'] = torch.zeros_like(parameter)
            mul = self.fixed_weights()[0]
            add = add - (1 if mul is None else mul) / (add.shape[-1] ** 2 * self.gamma)
        return TakenOver({**state, 'add': add}, dict(norm), energy)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        q, k, v = self.split_qkv(x)
        out = attend_neighborhood(
            v,
            self.weights(q, k),
            *self.fixed_weights(),
            dilation=self.dilation,
            backend=self.backend,
        )
        return self.project(out)

    def split_qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries and keys (B, C_qk, H, W) and values (B, C_out, H, W) of a map."""
        return self.qkv(x).split(self.splits, dim=1)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Softmax weights of the neighbours, in float32 or wider.

        Args:
            q (Tensor): Queries, shape (B, C_qk, H, W).
            k (Tensor): Keys, shape (B, C_qk, H, W).

        Returns:
            Tensor: Shape (B, heads, k * k, H, W), the offsets in row-major order.
        """
        product = q * k
        if self.qk_scale != 1:
            product = product * self.qk_scale
        logits = self.logits(F.gelu(self.surroundings(product)))
        logits = logits.unflatten(1, (self.num_heads, -1))
        return logits.softmax(2, dtype=torch.promote_types(logits.dtype, torch.float32))

    def fixed_weights(self) -> tuple[Tensor | None, Tensor | None]:
        """``mul ** lam`` and ``gamma * add``, each of shape (C_out, k, k), or None."""
        mul, add = self.mul, self.add
        if mul is not None and self.lam != 1:
            mul = mul**self.lam
        if add is not None and self.gamma != 1:
            add = self.gamma * add
        return mul, add

    def look(self, x: Tensor) -> Callable[[int, int], Attended]:
        """Where the positions of a map look: at their neighbours, by the softmax and always."""
        q, k, _ = self.split_qkv(x)
        weights, shape = self.weights(q, k)[0], x.shape[-2:]
        _, add = self.fixed_weights()
        if add is not None:
            add = add.abs().unflatten(0, (self.num_heads, -1)).mean(1).flatten(1)
        return partial(self._look_from, weights, add, shape)

    def _look_from(
        self, weights: Tensor, add: Tensor | None, shape: torch.Size, row: int, col: int
    ) -> Attended:
        windows = (weights[..., row, col], add)
        return Attended(
            *(x if x is None else spread(x, row, col, shape, self.dilation) for x in windows)
        )


def spread(window: Tensor, row: int, col: int, shape: Sequence[int], dilation: int) -> Tensor:
    """The weights (heads, k * k) of the neighbours of a position on its map: (heads, H, W)."""
    size = math.isqrt(window.shape[1])
    reach = size // 2 * dilation
    rows, cols = (slice(first, first + 2 * reach + 1, dilation) for first in (row, col))
    padded = window.new_zeros(len(window), *(length + 2 * reach for length in shape))
    padded[:, rows, cols] = window.unflatten(1, (size, size))
    return padded[:, reach : reach + shape[0], reach : reach + shape[1]].float()


def _key_channels(channels: int, ratio: float, group_width: int) -> int:
    if group_width < 1:
        raise UserValueError(f'group_width has to be 1 or more, got {group_width}')
    fraction = Fraction(ratio).limit_denominator(64)
    share = channels // fraction.denominator * fraction.numerator
    if share < 1:
        raise UserValueError(
            f'key_ratio {ratio} leaves no channel of {channels} to queries and keys'
        )
    return -(-share // group_width) * group_width
