"""Draw where a position of an image looks: local field, context weights and omega of LESA.

Writes one PNG a layer: the point, the receptive field of the local term there, the weights of the
context for this position (mean of the heads, and each), and omega, how much context every position
takes. Of ELSA: the weights of the position's neighbours, and what each head adds everywhere.
"""

from argparse import ArgumentParser
from pathlib import Path

from lesa_mmdet.analysis.maps import look
from lesa_mmdet.analysis.operators import operators
from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.command import add_model_options, add_out, command
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.images import read_image
from lesa_mmdet.utils.paths import check_output
from lesa_mmdet.utils.text import readable
from lesa_mmdet.visualization.curves import PICTURES
from lesa_mmdet.visualization.panels import draw_maps


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('image', type=Path)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--point', nargs=2, type=int, metavar=('X', 'Y'), required=True, help='pixel of the image'
    )
    parser.add_argument(
        '--layer',
        nargs='+',
        metavar='NAME',
        help="such as layer3.1, or 'all'; default: the last with the finest map",
    )
    add_out(parser, 'work_dirs/attention_map', 'picture to write, or a folder')
    add_model_options(parser)
    args = parser.parse_args()
    is_file = bool(args.out.suffix) and not args.out.is_dir()
    check_output(args.out, '--out', PICTURES if is_file else (), is_folder=not is_file)
    image = read_image(args.image)
    model = load_model(args.config, args.checkpoint, args.device, args.cfg_options)
    layers = list(operators(model)) if args.layer == ['all'] else args.layer
    if is_file and len(layers or ()) > 1:
        raise UserValueError(
            f'--out {args.out} is one file for {len(layers)} layers: name a folder'
        )
    view, maps = look(model, args.image, args.point, layers)
    (args.out.parent if is_file else args.out).mkdir(parents=True, exist_ok=True)
    for layer, of_layer in maps.items():
        name = '{}_{}-{}_{}.png'.format(args.image.stem, *args.point, layer)
        path = args.out if is_file else args.out / name
        figure = draw_maps(image, view, args.point, of_layer)
        figure.suptitle(readable(f'{Path(args.config).stem}: {layer}'))
        figure.savefig(path, dpi=110)
        print(path)


if __name__ == '__main__':
    main()
