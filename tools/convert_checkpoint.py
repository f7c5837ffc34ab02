"""Write a checkpoint under this package's names and with weights alone, to keep or to publish.

Of a training's checkpoint (three times the weights) it leaves out the state of the optimizer and of
the schedules, and the log history.
"""

from argparse import ArgumentParser
from collections.abc import Mapping

import torch
from mmengine.runner import CheckpointLoader, save_checkpoint

from lesa_mmdet.checkpoints import convert_official
from lesa_mmdet.checkpoints.fit import weights_of
from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.paths import check_exists, check_output
from lesa_mmdet.utils.text import shown


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        'source', help="the authors' ImageNet or detector file, or one of a training"
    )
    parser.add_argument('target', help='file to write: {"meta": ..., "state_dict": ...}')
    args = parser.parse_args()

    check_exists(args.source, 'checkpoint', 'name one of the authors, or of a training')
    check_output(args.target, 'the file to write,', ('.pth', '.pt'))
    checkpoint = CheckpointLoader.load_checkpoint(args.source, map_location='cpu')
    state_dict = weights_of(checkpoint)
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise UserValueError(f'{args.source} has no weights, only {shown(list(checkpoint))}')
    converted = convert_official(state_dict)
    renamed = len(set(converted) - set(state_dict))
    meta = checkpoint.get('meta', {}) if isinstance(checkpoint.get('meta'), Mapping) else {}
    save_checkpoint({'meta': meta, 'state_dict': converted}, args.target)
    print(f'{args.target}: {len(converted)} tensors, {renamed} of them renamed')


if __name__ == '__main__':
    main()
