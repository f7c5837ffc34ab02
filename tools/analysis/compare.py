"""Draw the detections of several models on the same images side by side.

Example: tools/analysis/compare.py data/coco/val2017/000000000139.jpg --models CONFIG CHECKPOINT
--models CONFIG CHECKPOINT
"""

from argparse import ArgumentParser
from pathlib import Path

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.command import add_model_options, add_out, add_repeatable, command
from lesa_mmdet.utils.images import find_images
from lesa_mmdet.utils.paths import check_output
from lesa_mmdet.visualization.compare import draw_comparison, draw_detections
from lesa_mmdet.visualization.curves import PICTURES


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('images', nargs='+', help='image files, folders of them, patterns, URLs')
    add_repeatable(
        parser,
        '--models CONFIG CHECKPOINT',
        required=True,
        help='a column; give it once for each model',
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='leave out detections below; default: 0.3'
    )
    add_out(parser, 'work_dirs/compare.png', 'picture to write, or a folder that exists')
    add_model_options(parser)
    args = parser.parse_args()
    if args.out.is_dir():
        args.out /= 'compare.png'
    check_output(args.out, '--out', PICTURES)
    images = find_images(args.images)
    columns, titles = [], []
    for config, checkpoint in args.models:
        model = load_model(config, checkpoint, args.device, args.cfg_options)
        columns.append([draw_detections(model, image, args.score_thr) for image in images])
        titles.append(f'{Path(config).stem}\n{"/".join(Path(checkpoint).parts[-2:])}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    names = [Path(image).name for image in images]
    draw_comparison(columns, titles, names).savefig(args.out, dpi=110)
    print(args.out)


if __name__ == '__main__':
    main()
