"""The names of LESA's authors in their checkpoints. No other module knows them."""

import re
from collections.abc import Mapping

from torch import Tensor

# Names inside an operator, the authors' and ours.
_RENAMED = {
    'rel_height': 'context.height',
    'rel_width': 'context.width',
    'relative': 'context.relative',
    'qkv_transform': 'context.qkv',
    'bn_qkv': 'context.qkv_norm',
    'bn_similarity': 'context.similarity_norm',
    'bn_output': 'context.output_norm',
    'x_transform.0': 'local.conv',
    'x_transform.1': 'local.project',
    'bn_x': 'local.norm',
    'reasoning.1': 'fusion.conv1',
    'reasoning.2': 'fusion.norm1',
    'projection.0': 'fusion.conv2',
    'projection.1': 'fusion.norm2',
}
_OPERATOR_KEY = re.compile(
    r'^(?P<block>(.*\.)?conv2\.|)(?P<name>'
    + '|'.join(map(re.escape, _RENAMED))
    + r')(?P<rest>\..+|)$'
)


def convert_lesa(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of LESA's authors to ours.

    Args:
        state_dict (Mapping[str, Tensor]): As of :func:`lesa_mmdet.checkpoints.convert_official`.

    Returns:
        dict[str, Tensor]: The same tensors under our names. The projections' weights, of a 1D
        convolution there, have the shape of a 2D one; the constant ``flatten_index`` is gone.
    """
    converted = {}
    for key, value in state_dict.items():
        key = key.removeprefix('module.')
        match = _OPERATOR_KEY.match(key)
        if match:
            key = match['block'] + _RENAMED[match['name']] + match['rest']
            if match['name'] == 'qkv_transform' and value.dim() == 3:
                value = value.unsqueeze(-1)
        if not key.endswith('flatten_index'):
            converted[key] = value
    return converted
