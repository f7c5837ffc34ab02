"""A checkpoint with operators out of one with convolutions, written once."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor

from ..upstream import MODELS
from ..utils.errors import UserValueError
from .adapt import adapt_state_dict
from .resnet import collect_inputs, from_convolutions


def make_operators(
    state_dict: MutableMapping[str, Tensor],
    cfg: Mapping[str, Any],
    images: Iterable[np.ndarray] | None = None,
) -> None:
    """Turn what a state dict has of a ResNet into what a backbone with operators takes, in place.

    What starts fresh is the same every time.

    Args:
        state_dict (MutableMapping[str, Tensor]): State dict of a backbone, or of a model that has
            one.
        cfg (Mapping[str, Any]): Config of the model, or of the backbone alone.
        images (Iterable[np.ndarray], optional): RGB images (H, W, 3), uint8. Operators that can are
            fitted to what the convolutions see in them.

    Raises:
        ValueError: If the backbone is no ResNet, the state dict does not fit it, or the config does
            not say how the model takes images and there are some.
    """
    backbone = {**cfg.get('backbone', cfg), 'init_cfg': None}
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(backbone)
    if not hasattr(model, 'pretrained_conv'):
        raise UserValueError(
            f'the backbone of the config is {backbone["type"]}, which takes no convolutions of a '
            'ResNet; name a config with a LESA_ResNet or LESA_WRN'
        )
    model.pretrained_conv = True
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')  # mmengine lists every parameter
    model.init_weights()
    logger.setLevel(level)
    prefix = 'backbone.' if any(key.startswith('backbone.') for key in state_dict) else ''
    if images is not None:
        mine = [key for key in state_dict if key.startswith(prefix)]
        given = {key.removeprefix(prefix): state_dict.pop(key) for key in mine}
        names = [
            name
            for name, operator in model.named_modules()
            if hasattr(operator, 'from_convolution') and f'{name}.weight' in given
        ]
        plain = MODELS.build({**backbone, 'operator': None}).eval()
        plain.load_state_dict(given)
        inputs = collect_inputs(plain, names, _preprocessed(images, cfg, model.input_size))
        from_convolutions(given, model, zero_init_context=model.zero_init_context, inputs=inputs)
        state_dict.update({prefix + key: value for key, value in given.items()})
    adapt_state_dict(state_dict, prefix, model)


def _preprocessed(
    images: Iterable[np.ndarray], cfg: Mapping[str, Any], size: tuple[int, int]
) -> Iterator[Tensor]:
    """Images as the backbone takes them, (1, 3, H, W)."""
    if 'data_preprocessor' not in cfg:
        raise UserValueError(
            'the config has no data_preprocessor in its model, which says how it takes images: '
            'name the config of a detector, or no images'
        )
    preprocess = MODELS.build(cfg['data_preprocessor'])
    for image in images:
        resized: Any = mmcv.imresize(image, size[::-1])
        bgr = np.ascontiguousarray(resized[..., ::-1])  # as mmdet's pipelines read it
        tensor = torch.from_numpy(bgr).permute(2, 0, 1)
        yield preprocess(dict(inputs=[tensor], data_samples=None))['inputs']
