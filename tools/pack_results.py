"""Check results that tools/test_dev.py wrote, and zip them for COCO's evaluation server again."""

from argparse import ArgumentParser

from lesa_mmdet.evaluation.submission import pack
from lesa_mmdet.utils.command import command


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('prefix', help='of PREFIX.bbox.json, PREFIX.segm.json, PREFIX.images.json')
    parser.add_argument('ann_file', help="COCO's list of the images, image_info_test-dev2017.json")
    parser.add_argument('algorithm', help='name on the server')
    args = parser.parse_args()
    pack(args.prefix, args.ann_file, args.algorithm)


if __name__ == '__main__':
    main()
