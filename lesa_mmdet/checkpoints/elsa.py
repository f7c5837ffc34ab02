"""The names of ELSA's authors in their checkpoints. No other module knows them."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Names of a backbone and its blocks, the authors' and mmdet's.
_RENAMED = (
    (r'^((?:backbone\.)?patch_embed\.)proj\.', r'\1projection.'),
    (r'^((?:backbone\.)?)layers\.', r'\1stages.'),
    (r'^((?:.*\.)?)mlp\.fc1\.', r'\1ffn.layers.0.0.'),
    (r'^((?:.*\.)?)mlp\.fc2\.', r'\1ffn.layers.1.'),
    (r'^head\.(weight|bias)$', r'fc.\1'),
)
# Names inside ELSA and inside window attention, the authors' and ours or mmdet's.
_OPERATOR = {
    'pre_proj': 'qkv',
    'attn.0': 'surroundings',
    'attn.2': 'logits',
    'post_proj': 'project',
}
_WINDOW = {'pre_proj': 'w_msa.qkv', 'post_proj': 'w_msa.proj'}
_CONSTANTS = ('relative_id', 'attn_mask')


def convert_elsa(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of ELSA's authors, and lay them out as mmdet's Swin has them.

    Args:
        state_dict (Mapping[str, Tensor]): State dict of an operator, a block, a stage, a backbone,
            a classifier or a detector; any other stays unchanged. Keys may have the prefix
            ``backbone.`` (kept).

    Returns:
        dict[str, Tensor]: The same parameters under our names, the classifier's as ``fc.*``.
        Merging has its channels in another order; window attention has queries, keys and values in
        this order, and its position table transposed and reversed; constants are gone.
    """
    operators, windows = (
        {key.removesuffix(name) for key in state_dict if re.search(rf'(^|\.){name}$', key)}
        for name in ('ghost_head', 'rb')
    )
    if not operators and not windows:
        return dict(state_dict)
    converted = {}
    for key, value in state_dict.items():
        owner = ''.join(re.findall(r'^.*\battn\.(?!\d)', key))
        name = key[len(owner) :]
        if name in _CONSTANTS:
            continue
        if owner in operators:
            parameters = _convert_operator(name, value)
            owner = owner and owner + 'operator.'
        elif owner in windows:
            parameters = _convert_window(name, value)
        else:
            parameters = {name: _reorder_merging(value) if 'downsample.' in name else value}
        for name, parameter in parameters.items():
            converted[_rename(owner + name)] = parameter
    return converted


def _rename(key: str) -> str:
    for theirs, ours in _RENAMED:
        key = re.sub(theirs, ours, key)
    return key


def _convert_operator(name: str, value: Tensor) -> dict[str, Tensor]:
    if name == 'ghost_head':  # both, first the factors; or one: that of all released models
        return {'mul': value[0, 0], 'add': value[1, 0]} if value.dim() == 5 else {'add': value[0]}
    layer, _, leaf = name.rpartition('.')
    if layer == 'post_proj' and leaf == 'weight':
        value = value[..., None, None]
    return {f'{_OPERATOR.get(layer, layer)}.{leaf}': value}


def _convert_window(name: str, value: Tensor) -> dict[str, Tensor]:
    if name == 'rb':  # theirs is indexed by key minus query, mmdet's by query minus key
        return {'w_msa.relative_position_bias_table': value.flip(1).t()}
    layer, _, leaf = name.rpartition('.')
    if layer == 'pre_proj':
        v, q, k = value.chunk(3)
        value = torch.cat((q, k, v))
    return {f'{_WINDOW.get(layer, layer)}.{leaf}': value}


def _reorder_merging(value: Tensor) -> Tensor:
    """Inputs of patch merging: from four blocks of channels to channels of four positions.

    Their blocks are for (row, column) = (0, 0), (1, 0), (0, 1), (1, 1), mmdet's positions go row by
    row.
    """
    blocks = value.unflatten(-1, (4, -1))
    return blocks[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)
