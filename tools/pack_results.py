"""Check results that tools/test_dev.py wrote, and zip them for COCO's evaluation server again."""

import sys
from argparse import ArgumentParser

from lesa_mmdet.submission import pack


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        'prefix', help='what PREFIX.bbox.json, PREFIX.segm.json and PREFIX.images.json begin with'
    )
    parser.add_argument('ann_file', help="COCO's list of the images, image_info_test-dev2017.json")
    parser.add_argument('algorithm', help='name on the server')
    args = parser.parse_args()
    try:
        pack(args.prefix, args.ann_file, args.algorithm)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
