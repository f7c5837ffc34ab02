"""Write a checkpoint under this package's names and with weights alone, to keep or to publish.

Of a training's checkpoint (three times the weights) it leaves out the state of the optimizer and of
the schedules, and the log history.

With --config, the operators of that config's backbone are made of the file's convolutions: a
ResNet's file becomes one of LESA, and a trained detector with convolutions a LESA detector. With
--images, they are fitted to what the convolutions see in a few images.
"""

from argparse import ArgumentParser
from collections.abc import Mapping

import torch
from mmengine.runner import CheckpointLoader, save_checkpoint

from lesa_mmdet.checkpoints import convert_official
from lesa_mmdet.checkpoints.fit import require_finite, weights_of
from lesa_mmdet.checkpoints.make import make_operators
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.configs import load_config
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.images import find_images, read_image
from lesa_mmdet.utils.paths import check_exists, check_output
from lesa_mmdet.utils.text import shown

NUM_IMAGES = 64


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
    parser.add_argument(
        '--images',
        nargs='+',
        help=f'files or folders; with --config the operators are fitted to the first {NUM_IMAGES}',
    )
    args = parser.parse_args()
    if args.images and not args.config:
        parser.error('--images is for operators that are made: name --config, too')

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
        images = find_images(args.images)[:NUM_IMAGES] if args.images else ()
        make_operators(converted, cfg.model, map(read_image, images) if images else None)
        meta = {**meta, 'cfg': cfg.dump()}
    require_finite(converted)
    save_checkpoint({'meta': meta, 'state_dict': converted}, args.target)
    print(f'{args.target}: {len(converted)} tensors, {renamed} of them renamed')


if __name__ == '__main__':
    main()
