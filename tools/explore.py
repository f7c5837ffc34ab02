"""Open a page on this machine: what a model finds in images, and where it looks from a position.

Example: tools/explore.py CONFIG CHECKPOINT photos/
Several models side by side: tools/explore.py photos/ --models CONFIG CHECKPOINT --models ...
Without arguments: the detector of `make demo`, or else the one in weights/, on generated images.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.datasets.shapes import generate
from lesa_mmdet.engine.resume import list_saved, saved_by
from lesa_mmdet.utils.command import add_model_options, add_repeatable, command
from lesa_mmdet.utils.configs import read_config
from lesa_mmdet.utils.errors import UserFileNotFoundError
from lesa_mmdet.utils.images import find_images

ROOT = Path(__file__).parents[1]
OPENS_WITH = 'shapes_000019.jpg'  # whose shapes hide little of each other


@command
def main() -> None:
    parser = ArgumentParser(
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        usage='%(prog)s [options] [CONFIG CHECKPOINT [IMAGES ...]]\n'
        '       %(prog)s [options] [IMAGES ...] --models CONFIG CHECKPOINT [--models ...]',
    )
    parser.add_argument('arguments', nargs='*', metavar='CONFIG CHECKPOINT IMAGES')
    add_repeatable(parser, '--models CONFIG CHECKPOINT', help='a model; give it once for each')
    parser.add_argument('--score-thr', type=float, default=0.3, help='default: %(default)s')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on; default: this machine alone'
    )
    parser.add_argument('--port', type=int, help='default: the first free one from 7860')
    add_model_options(parser)
    args = parser.parse_args()
    images = args.arguments
    if not args.models and not images:
        args.models = [find_detector(ROOT)]
        held_out = (generate(ROOT / 'data' / 'shapes') / 'val').iterdir()
        images = sorted(held_out, key=lambda image: (image.name != OPENS_WITH, image.name))
    elif not args.models:
        if len(images) < 2:
            parser.error('CONFIG and CHECKPOINT are needed, or --models CONFIG CHECKPOINT')
        args.models, images = [images[:2]], images[2:]
    from lesa_mmdet.visualization.page import serve

    images = find_images(images)
    models = {}
    for config, checkpoint in args.models:
        folder, name = Path(checkpoint).absolute().parts[-2:]
        where = folder if Path(name).stem == Path(config).stem else f'{folder}/{name}'
        title = f'{Path(config).stem}, {where}'
        if title in models:
            title += f', model {len(models) + 1}'
        models[title] = load_model(config, checkpoint, args.device, args.cfg_options)
    serve(models, images, score_thr=args.score_thr, host=args.host, port=args.port)


def find_detector(root: Path) -> tuple[Path, Path]:
    """Config and checkpoint of the demo, or of the detector that the repository has.

    The latter are ``configs/*/NAME.py`` and ``weights/NAME.pth``.

    Raises:
        UserFileNotFoundError: If there is neither.
    """
    demo = root / 'work_dirs' / 'demo'
    configs = sorted(demo.glob('*.py'))
    if configs:
        trained = list_saved(demo, *saved_by(read_config(str(configs[-1])), demo))
        if trained:
            return configs[-1], Path(trained[0])
    for checkpoint in sorted((root / 'weights').glob('*.pth')):
        for config in (root / 'configs').glob(f'*/{checkpoint.stem}.py'):
            return config, checkpoint
    raise UserFileNotFoundError(
        f'there is no detector in {demo} (make demo trains one) or {root / "weights"}'
    )


if __name__ == '__main__':
    main()
