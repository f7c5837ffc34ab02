"""Cut the objects out of COCO's images, into folders by class: OUT/train/CLASS/, OUT/val/CLASS/.

Annotation files are found by name (annotations/instances_*train*.json, *val*.json) with the image
folders next to their folder, or named with --split. Started again, it goes on where it was.
"""

from argparse import ArgumentParser
from pathlib import Path

from lesa_mmdet.datasets.crops import cut_crops, find_train_and_val, measure_colors
from lesa_mmdet.utils.command import add_repeatable, command
from lesa_mmdet.utils.errors import UserValueError


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('root', type=Path, help='the data set, for example data/coco')
    parser.add_argument('out', type=Path, help='folder to write, for example data/crops')
    add_repeatable(
        parser,
        '--split NAME ANN_FILE FOLDER',
        help='name (train or val), annotation file and image folder, relative to root; twice',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        default=['10'],
        help='how many: those with most objects in train; or their names. Default: 10',
    )
    parser.add_argument(
        '--min-size', type=int, default=32, help='shorter side of a box in pixels. Default: 32'
    )
    parser.add_argument(
        '--context',
        type=float,
        default=0.1,
        help='margin on each side, as a fraction of the box. Default: 0.1',
    )
    parser.add_argument('--square', action='store_true', help='square crops, where images allow')
    parser.add_argument('--max-per-class', type=int, help='in each split. Default: all')
    args = parser.parse_args()

    is_number = len(args.classes) == 1 and args.classes[0].isdigit()
    counts = cut_crops(
        find_splits(args.root, args.split),
        args.out,
        classes=int(args.classes[0]) if is_number else args.classes,
        min_size=args.min_size,
        context=args.context,
        square=args.square,
        max_per_class=args.max_per_class,
    )
    print(render(counts))
    mean, std = (
        [round(value, 3) for value in values] for values in measure_colors(args.out / 'train')
    )
    print(f'\ndata_preprocessor = dict(mean={mean}, std={std}, to_rgb=True)')


def find_splits(root: Path, named: list[list[str]]) -> dict[str, tuple[Path, Path]]:
    """Annotation file and image folder of train and val."""
    if not named:
        return find_train_and_val(root)
    splits = {name: (root / ann_file, root / folder) for name, ann_file, folder in named}
    if sorted(splits) != ['train', 'val'] or len(named) != 2:
        names = ', '.join(name for name, *_ in named)
        raise UserValueError(f'--split has to name train and val, once each, but names {names}')
    return {split: splits[split] for split in ('train', 'val')}


def render(counts: dict[str, dict[str, int]]) -> str:
    """A table of the crops by class and split."""
    lines = [f'{"class":<20}' + ''.join(f'{split:>9}' for split in counts)]
    for name in counts['train']:
        numbers = (of_split[name] for of_split in counts.values())
        lines.append(f'{name:<20}' + ''.join(f'{number:>9,}' for number in numbers))
    totals = (sum(of_split.values()) for of_split in counts.values())
    return '\n'.join([*lines, f'{"all":<20}' + ''.join(f'{number:>9,}' for number in totals)])


if __name__ == '__main__':
    main()
