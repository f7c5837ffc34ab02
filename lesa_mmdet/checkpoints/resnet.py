"""Operators from the convolutions of a plain ResNet, so that nothing that it has learnt is lost.

An operator says itself what of a convolution it can take over, as ``from_convolution`` of
:class:`lesa_mmdet.models.layers.Operator`; here is what they need for it.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from mmengine.logging import print_log
from torch import Tensor, nn

from ..utils.errors import UserValueError

STATISTICS = ('running_mean', 'running_var')
_RIDGE = 1e-4  # of the mean variance


class TakenOver(NamedTuple):
    """What an operator takes over of a convolution and of the norm behind it.

    Attributes:
        state (dict[str, Tensor]): Tensors of the operator by their names in it. Its others start
            fresh.
        norm (dict[str, Tensor]): Tensors of the norm that follows the operator, if one does.
        energy (float, optional): Share of the sum of the squares of the kernel's weights that is
            kept, or None if nothing of the kernel is.
    """

    state: dict[str, Tensor]
    norm: dict[str, Tensor]
    energy: float | None


def decompose_grouped(
    kernel: Tensor, groups: int, inputs: Tensor | None = None
) -> tuple[Tensor, Tensor, float]:
    """The grouped convolution and the 1x1 projection behind it that are nearest to a dense kernel.

    For the input channels of each group, the kernel is a matrix of C_out rows, of which a truncated
    singular value decomposition keeps C_out / groups values, their roots on either side (Eckart and
    Young 1936). With inputs it is the outputs for them, less their mean, that are nearest: the
    matrix is decomposed behind the root of the inputs' covariance. Computed in float32 or wider.

    Args:
        kernel (Tensor): Shape (C_out, C_in, k, k).
        groups (int): Groups of the convolution.
        inputs (Tensor, optional): What the kernel sees at n positions, shape (n, C_in, k, k).

    Returns:
        tuple[Tensor, Tensor, float]: The grouped kernel (C_out, C_in / groups, k, k), the
        projection (C_out, C_out, 1, 1), and the share of the kernel's energy that they keep.
    """
    size, rank = kernel.shape[-1], len(kernel) // groups
    blocks = rearrange(_wide(kernel), 'o (g i) h w -> g o (i h w)', g=groups)
    if inputs is None:
        left, values, right = torch.linalg.svd(blocks, full_matrices=False)
    else:
        root, inverse = _covariance_roots(_wide(inputs), groups)
        left, values, right = torch.linalg.svd(blocks @ root, full_matrices=False)
        right = right @ inverse
    roots = values[:, :rank].sqrt()
    project = rearrange(left[..., :rank] * roots[:, None], 'g o r -> o (g r) 1 1')
    grouped = rearrange(
        right[:, :rank] * roots[..., None], 'g r (i h w) -> (g r) i h w', h=size, w=size
    )
    return grouped, project, energy_share(values[:, :rank], values)


def _covariance_roots(inputs: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Root of the covariance of the inputs of each group, and its inverse."""
    x = rearrange(inputs, 'n (g i) h w -> g n (i h w)', g=groups)
    x = x - x.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(x.mT @ x / x.shape[1])
    # What the samples do not vary in may vary elsewhere.
    values = values.clamp_min(0) + _RIDGE * values.mean(-1, keepdim=True).clamp_min(1e-12)
    roots = values.sqrt()[:, None]
    return vectors * roots @ vectors.mT, vectors / roots @ vectors.mT


def decompose_depthwise(kernel: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """A dense kernel as a 1x1 projection, a filter for each of its channels, and a 1x1 projection.

    Of the orthonormal filters in which the kernel's k * k taps vary most, each has a matrix of
    C_out x C_in. The largest singular values of all these matrices together are kept, one a
    channel. Computed in float32 or wider.

    Args:
        kernel (Tensor): Shape (C_out, C_in, k, k).
        channels (int): Channels between the projections.

    Returns:
        tuple[Tensor, Tensor, Tensor, float]: The first projection (channels, C_in), the filters
        (channels, k, k), the last projection (C_out, channels), and the share of the kernel's
        energy that they keep.
    """
    size = kernel.shape[-1]
    taps = rearrange(_wide(kernel), 'o i h w -> (o i) (h w)')
    _, basis = torch.linalg.eigh(taps.T @ taps)
    matrices = rearrange(taps @ basis, '(o i) f -> f o i', o=len(kernel))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    count = min(channels, values.numel())
    kept, order = values.flatten().topk(count)
    of_filter, index = order // values.shape[1], order % values.shape[1]
    first = taps.new_zeros(channels, kernel.shape[1])
    filters = taps.new_zeros(channels, size, size)
    last = taps.new_zeros(len(kernel), channels)
    first[:count] = right[of_filter, index] * kept.sqrt()[:, None]
    filters[:count] = basis.T[of_filter].unflatten(1, (size, size))
    last[:, :count] = (left[of_filter, :, index] * kept.sqrt()[:, None]).T
    return first, filters, last, energy_share(kept, values)


def energy_share(kept: Tensor, values: Tensor) -> float:
    """The share of some values, or singular values, in the sum of the squares of all."""
    energy = _wide(values).square().sum()
    return float(_wide(kept).square().sum() / energy) if energy else 1.0


def moved_statistics(
    norm: Mapping[str, Tensor], outputs: Tensor, nearest: Tensor
) -> dict[str, Tensor]:
    """A batch norm whose statistics follow when its inputs are not quite what they were.

    Args:
        norm (Mapping[str, Tensor]): The batch norm's tensors.
        outputs (Tensor): What the convolution before it gave for n inputs, shape (n, C, 1, 1).
        nearest (Tensor): What it is given instead.
    """
    (mean, before), (new_mean, after) = (
        (x.mean((0, 2, 3)), x.var((0, 2, 3))) for x in (outputs, nearest)
    )
    ratio = torch.where(before > 0, after / before, 1)
    return {
        **norm,
        'running_mean': norm['running_mean'] + new_mean - mean,
        'running_var': norm['running_var'] * ratio,
    }


def only_statistics(norm: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch norm's statistics, with factors of 1 and no shift."""
    weight, bias = norm['weight'], norm['bias']
    return {**norm, 'weight': torch.ones_like(weight), 'bias': torch.zeros_like(bias)}


def only_affine(norm: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch norm's factors and shifts, with statistics of what is normed already."""
    mean, variance = norm['running_mean'], norm['running_var']
    fresh = {'running_mean': torch.zeros_like(mean), 'running_var': torch.ones_like(variance)}
    return {**norm, **fresh}


@torch.no_grad()
def from_convolutions(
    given: MutableMapping[str, Tensor],
    backbone: nn.Module,
    *,
    zero_init_context: bool,
    inputs: Mapping[str, Tensor] | None = None,
) -> None:
    """Make a backbone's operators out of the convolutions that a state dict has in their place.

    Operators that the state dict has already stay as they are. Changes ``given`` in place, and logs
    in one line what was made and how much of the kernels' energy is kept.

    Args:
        given (MutableMapping[str, Tensor]): State dict of a ResNet in the names of torchvision,
            mmdet, mmpretrain or timm, without a prefix.
        backbone (nn.Module): The backbone that is about to load it.
        zero_init_context (bool): Whether what is new in the operators starts silent.
        inputs (Mapping[str, Tensor], optional): What convolutions see, by their names: see
            :func:`collect_inputs`. Operators that can are fitted to it.

    Raises:
        ValueError: If a convolution has another shape than the operator in its place needs, weights
            that are not finite, or no batch norm with statistics behind it.
    """
    own, energies, fresh = backbone.state_dict(), {}, set()
    _rename_deep_stem(given, own)
    for name, operator in backbone.named_modules():
        if f'{name}.weight' not in given or not hasattr(operator, 'from_convolution'):
            continue
        block = name.rpartition('.')[0]
        norm_name = f'{block}.{backbone.get_submodule(block).norm2_name}'
        conv, norm = _part(given, name), _part(given, norm_name)
        _check(name, norm_name, conv, norm, own)
        seen = {'inputs': inputs[name]} if inputs else {}
        taken = operator.from_convolution(
            {**conv, **seen}, norm, zero_init_context=zero_init_context
        )
        for key in [f'{name}.{leaf}' for leaf in conv] + [f'{norm_name}.{leaf}' for leaf in norm]:
            del given[key]
        given.update({f'{name}.{leaf}': value for leaf, value in taken.state.items()})
        given.update(
            (key, value)
            for leaf, value in taken.norm.items()
            if (key := f'{norm_name}.{leaf}') in own
        )
        for key in own:
            if key.startswith(f'{name}.') and key not in given:
                given[key] = own[key]
                fresh.add(key[len(name) + 1 :].partition('.')[0])
        energies[block] = taken.energy
    if energies:
        silent = ', silent' if zero_init_context else ''
        print_log(
            f'{len(energies)} operators ({next(iter(energies))} to {[*energies][-1]}) are made of '
            f'convolutions: {_kept(list(energies.values()))}; fresh{silent}: '
            f'{", ".join(sorted(fresh))}.',
            logger='current',
        )


@torch.no_grad()
def collect_inputs(
    plain: nn.Module, names: Collection[str], images: Iterable[Tensor], samples: int = 64
) -> dict[str, Tensor]:
    """What 3x3 convolutions of a ResNet see at random positions of images.

    Args:
        plain (nn.Module): The ResNet in evaluation mode.
        names (Collection[str]): Names of the convolutions in it.
        images (Iterable[Tensor]): Images (B, 3, H, W), as the ResNet takes them.
        samples (int): Positions of each image, at most.

    Returns:
        dict[str, Tensor]: Inputs (n, C_in, 3, 3) of each convolution.
    """
    found = {name: [] for name in names}

    def keep(name: str, conv: Any, args: tuple[Tensor, ...]) -> None:
        for patches in F.unfold(args[0], 3, dilation=conv.dilation, padding=conv.dilation):
            chosen = torch.randperm(patches.shape[1])[:samples]
            found[name].append(patches[:, chosen].T.unflatten(1, (-1, 3, 3)))

    hooks = [
        plain.get_submodule(name).register_forward_pre_hook(partial(keep, name)) for name in names
    ]
    for image in images:
        plain(image)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(patches) for name, patches in found.items()}


def different_stages(given: Iterable[str], own: Iterable[str]) -> str:
    """In what the stem or the stages of two ResNets differ, by the keys of their state dicts.

    Args:
        given (Iterable[str]): Keys of a checkpoint.
        own (Iterable[str]): Keys of a backbone.

    Returns:
        str: A clause for people; empty if both are the same, or one of them is no ResNet.
    """
    (stem, blocks), (own_stem, own_blocks) = map(_stem_and_blocks, (given, own))
    if not blocks or not own_blocks:
        return ''
    if blocks != own_blocks:
        return f'its stages have {blocks} blocks, those of the backbone {own_blocks} (depth)'
    if stem != own_stem:
        kind = {True: 'a deep stem', False: 'a stem of one convolution'}
        return f'it has {kind[stem]}, the backbone {kind[own_stem]} (deep_stem)'
    return ''


def _stem_and_blocks(keys: Iterable[str]) -> tuple[bool, str]:
    """Whether a ResNet has a deep stem, and the numbers of blocks of its stages."""
    keys = list(keys)
    blocks = sorted({match.groups() for match in map(_BLOCK.match, keys) if match})
    counts = Counter(stage for stage, _ in blocks)
    deep = any(key.startswith(('stem.', 'conv1.0.')) for key in keys)
    return deep, ', '.join(map(str, counts.values()))


_BLOCK = re.compile(r'layer([1-4])\.(\d+)\.')
_TIMM_STEM = re.compile(r'conv1\.(\d)\.')
_MMPRETRAIN_STEM = re.compile(r'stem\.(\d)\.(conv|bn)\.')


def _rename_deep_stem(given: MutableMapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Give a ResNet-D of timm or mmpretrain mmdet's names, in place.

    mmdet's stem has convolution, norm and ReLU three times in one row of modules. timm has the last
    norm after it; mmpretrain has a module for each three, and no pooling in the first shortcut.
    """
    shortcut = 'layer1.0.downsample.'
    if any(key.startswith(f'{shortcut}2.') for key in own.keys() - given.keys()):
        for old, new in ((1, 2), (0, 1)):
            for leaf, value in _part(given, f'{shortcut}{old}').items():
                del given[f'{shortcut}{old}.{leaf}']
                given[f'{shortcut}{new}.{leaf}'] = value
    timm = any(map(_TIMM_STEM.match, given))
    for key in list(given):
        if timm:
            new = _TIMM_STEM.sub(r'stem.\1.', key) if key.startswith('conv1.') else key
            new = re.sub(r'^bn1\.', 'stem.7.', new)
        else:
            new = _MMPRETRAIN_STEM.sub(
                lambda match: f'stem.{3 * int(match[1]) + (match[2] == "bn")}.', key
            )
        if new != key:
            given[new] = given.pop(key)


def _part(given: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What a state dict has of a module, without the prefix."""
    prefix = f'{name}.'
    return {key[len(prefix) :]: given[key] for key in given if key.startswith(prefix)}


def _check(
    name: str,
    norm_name: str,
    conv: Mapping[str, Tensor],
    norm: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> None:
    """Check that an operator can be made of a convolution and the norm behind it."""
    if next(value for key, value in own.items() if key.startswith(f'{name}.')).is_meta:
        raise UserValueError(
            f'{name} is made of a convolution, for which the backbone needs memory: on the meta '
            'device, call to_empty and init_weights before loading'
        )
    block = name.rpartition('.')[0]
    inner = len(own[f'{block}.conv1.weight'])
    expected, kernel = (inner, inner, 3, 3), conv['weight']
    if tuple(kernel.shape) != expected:
        raise UserValueError(
            f'no operator of the backbone can be made of {name}.weight, which is '
            f'{tuple(kernel.shape)}, not {expected}: the width has to be the same (LESA_ResNet for '
            'resnet50, LESA_WRN for wide_resnet50_2), and the convolution without groups'
        )
    if not kernel.isfinite().all():
        raise UserValueError(f'{name}.weight of the checkpoint is not finite (NaN or infinity)')
    missing = [leaf for leaf in ('weight', 'bias', *STATISTICS) if leaf not in norm]
    if missing:
        raise UserValueError(
            f'the checkpoint has no {", ".join(missing)} of {norm_name}: operators are made of '
            'convolutions with a batch norm behind them, and its statistics'
        )


def _wide(kernel: Tensor) -> Tensor:
    """A kernel in float32 or wider, in which it is decomposed."""
    return kernel.to(torch.promote_types(kernel.dtype, torch.float32))


def _kept(energies: Sequence[float | None]) -> str:
    """How much of the energy of their kernels operators keep, for people."""
    known = [energy for energy in energies if energy is not None]
    if not known:
        return 'nothing of the kernels is kept'
    return (
        f'{min(known):.1%} of the energy of a kernel is kept at least, {median(known):.1%} in the '
        'median'
    )
