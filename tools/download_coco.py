"""Download COCO 2017 and unpack it into mmdet's layout. Started again, it goes on where it was.

Archives are kept in ROOT/archives unless --delete-archives; ROOT/archives/NAME.unpacked notes what
is done.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

from lesa_mmdet.datasets.download import download, get_progress, get_size, unpack
from lesa_mmdet.utils.command import command

COCO = 'http://images.cocodataset.org'
STUFF = 'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset'


class Part(NamedTuple):
    """An archive: where from, where to below ROOT, what for."""

    url: str
    folder: str
    purpose: str


PARTS = {
    'annotations': Part(f'{COCO}/annotations/annotations_trainval2017.zip', '', 'boxes and masks'),
    'val': Part(f'{COCO}/zips/val2017.zip', '', 'images of val2017'),
    'train': Part(f'{COCO}/zips/train2017.zip', '', 'images of train2017'),
    'stuff': Part(f'{STUFF}/stuffthingmaps_trainval2017.zip', 'stuffthingmaps', 'maps for HTC'),
    'test-info': Part(f'{COCO}/annotations/image_info_test2017.zip', '', 'lists of test images'),
    'test': Part(f'{COCO}/zips/test2017.zip', '', 'images of test2017, for test-dev'),
}
DEFAULT = ('annotations', 'val', 'train')


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('root', nargs='?', type=Path, default=Path('data/coco'))
    parser.add_argument(
        '--parts', nargs='+', choices=PARTS, default=DEFAULT, help=f'default: {" ".join(DEFAULT)}'
    )
    parser.add_argument('--mirror', help='fetch the archives from MIRROR/NAME.zip instead')
    parser.add_argument('--delete-archives', action='store_true', help='delete them once unpacked')
    parser.add_argument('--dry-run', action='store_true', help='only list what would be fetched')
    args = parser.parse_args()

    for name in args.parts:
        url, folder, purpose = PARTS[name]
        if args.mirror:
            url = f'{args.mirror.rstrip("/")}/{Path(url).name}'
        archive = args.root / 'archives' / Path(url).name
        done = archive.with_suffix('.unpacked')
        if args.dry_run or done.is_file():
            print(describe(name, url, purpose, archive, done), flush=True)
            continue
        download(url, archive)
        unpack(archive, args.root / folder)
        done.touch()
        if args.delete_archives:
            archive.unlink()
    if not args.dry_run:
        print(f'all there; to check it: python tools/check_dataset.py {args.root}')


def describe(name: str, url: str, purpose: str, archive: Path, done: Path) -> str:
    """One line on what is to be fetched for a part."""
    if done.is_file():
        return f'{name:<12} there already'
    try:
        size = get_size(url)
        to_fetch = f'{size - get_progress(archive):,} of {size:,} bytes'
    except OSError as error:
        to_fetch = f'unknown size ({error})'
    return f'{name:<12} {to_fetch}, {purpose}: {url}'


if __name__ == '__main__':
    main()
