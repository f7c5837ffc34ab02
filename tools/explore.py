"""Open a page on this machine: detections of images, and where a model looks from a clicked point.

Example: tools/explore.py CONFIG CHECKPOINT photos/
Several models side by side: tools/explore.py photos/ --models CONFIG CHECKPOINT --models ...
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.command import add_model_options, add_repeatable, command
from lesa_mmdet.utils.images import find_images


@command
def main() -> None:
    parser = ArgumentParser(
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        usage='%(prog)s [options] CONFIG CHECKPOINT [IMAGES ...]\n'
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
    if not args.models:
        if len(images) < 2:
            parser.error('CONFIG and CHECKPOINT are needed, or --models CONFIG CHECKPOINT')
        args.models, images = [images[:2]], images[2:]
    from lesa_mmdet.visualization.page import serve

    images = find_images(images)
    models = {}
    for config, checkpoint in args.models:
        title = f'{Path(config).stem}, {"/".join(Path(checkpoint).parts[-2:])}'
        models[title] = load_model(config, checkpoint, args.device, args.cfg_options)
    serve(models, images, score_thr=args.score_thr, host=args.host, port=args.port)


if __name__ == '__main__':
    main()
