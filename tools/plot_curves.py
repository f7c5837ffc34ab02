"""Draw what several trainings logged into one picture: one color a run, details to the right."""

from argparse import ArgumentParser
from pathlib import Path

from lesa_mmdet.utils.command import command
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.paths import check_output
from lesa_mmdet.visualization.curves import PICTURES, compare_curves


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', type=Path, help='work directories of the runs')
    parser.add_argument('--out', type=Path, required=True, help='picture to write, as curves.png')
    parser.add_argument('--labels', nargs='+', help='names of the runs; default: those of folders')
    parser.add_argument(
        '--keys',
        nargs='+',
        default=(),
        help='what to draw of vis_data/scalars.json; default: top-1 accuracies, or box APs',
    )
    parser.add_argument(
        '--zoom',
        nargs=4,
        type=float,
        metavar=('FIRST_EPOCH', 'LAST_EPOCH', 'LOW', 'HIGH'),
        help='what the right side shows; default: the second half of the epochs',
    )
    args = parser.parse_args()

    labels = args.labels or [work_dir.resolve().name for work_dir in args.work_dirs]
    if len(set(labels)) != len(args.work_dirs) or len(labels) != len(args.work_dirs):
        raise UserValueError(
            f'{len(args.work_dirs)} runs need as many different names, but have '
            f'{", ".join(labels)}: name them with --labels'
        )
    check_output(args.out, '--out', PICTURES)
    compare_curves(
        dict(zip(labels, args.work_dirs, strict=True)), args.out, keys=args.keys, zoom=args.zoom
    )
    print(f'curves: {args.out}')


if __name__ == '__main__':
    main()
