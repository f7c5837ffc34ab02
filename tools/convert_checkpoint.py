"""Write a checkpoint under this package's names and with weights alone, to keep or to publish.

Of a training's checkpoint (three times the weights) it leaves out the state of the optimizer and of
the schedules, and the log history.

With --config, the operators of that config's backbone are made of the file's convolutions: a
ResNet's file becomes one of LESA, and a trained detector with convolutions a LESA detector.
"""

from argparse import ArgumentParser
from collections.abc import Mapping

import torch
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, save_checkpoint

from lesa_mmdet.checkpoints import adapt_state_dict, convert_official
from lesa_mmdet.checkpoints.fit import require_finite, weights_of
from lesa_mmdet.upstream import MODELS
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.configs import load_config
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.paths import check_exists, check_output
from lesa_mmdet.utils.text import shown


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        'source', help="the authors' ImageNet or detector file, one of a training, or a ResNet's"
    )
    parser.add_argument('target', help='file to write: {"meta": ..., "state_dict": ...}')
    parser.add_argument(
        '--config', help='make operators for the backbone of this config out of the convolutions'
    )
    args = parser.parse_args()

    check_exists(args.source, 'checkpoint', 'name one of the authors, or of a training')
    check_output(args.target, 'the file to write,', ('.pth', '.pt'))
    checkpoint = CheckpointLoader.load_checkpoint(args.source, map_location='cpu')
    state_dict = weights_of(checkpoint)
    if not any(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise UserValueError(f'{args.source} has no weights, only {shown(list(checkpoint))}')
    converted = convert_official(state_dict)
    renamed = len(set(converted) - set(state_dict))
    meta = checkpoint.get('meta', {}) if isinstance(checkpoint.get('meta'), Mapping) else {}
    if args.config:
        cfg = load_config(args.config)
        make_operators(converted, cfg.model.get('backbone', cfg.model))
        meta = {**meta, 'cfg': cfg.dump()}
    require_finite(converted)
    save_checkpoint({'meta': meta, 'state_dict': converted}, args.target)
    print(f'{args.target}: {len(converted)} tensors, {renamed} of them renamed')


def make_operators(state_dict: dict, backbone: dict) -> None:
    """Turn what a state dict has of a ResNet into what a backbone with operators takes, in place.

    Args:
        state_dict (dict): State dict of a backbone, or of a model that has one.
        backbone (dict): Config of the backbone.

    Raises:
        ValueError: If the backbone is no ResNet, or the state dict does not fit it.
    """
    init_default_scope('mmdet')
    torch.manual_seed(0)  # what starts fresh is the same in every file
    model = MODELS.build({**backbone, 'init_cfg': None})
    if not hasattr(model, 'pretrained_conv'):
        raise UserValueError(
            f'--config: its backbone is {backbone["type"]}, which takes no convolutions of a '
            'ResNet; name one with a LESA_ResNet or LESA_WRN'
        )
    model.pretrained_conv = True
    model.init_weights()
    prefix = 'backbone.' if any(key.startswith('backbone.') for key in state_dict) else ''
    adapt_state_dict(state_dict, prefix, model)


if __name__ == '__main__':
    main()
