"""Check a data set in COCO's layout: annotations, images and COCO-stuff maps. Exits 1 on problems.

Annotation files are found by name (annotations/instances_*.json, image_info_*.json) with the image
folders next to their folder, or named with --split.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from lesa_mmdet.datasets.check import check_dataset
from lesa_mmdet.utils.command import add_repeatable, command


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('root', type=Path, help='the data set, for example data/coco')
    add_repeatable(
        parser,
        '--split ANN_FILE FOLDER',
        help='annotation file and image folder, relative to root; may be given several times',
    )
    parser.add_argument('--sizes-only', action='store_true', help='do not decode images: quicker')
    parser.add_argument(
        '--boxes-only', action='store_true', help='objects need no masks, as for a Faster R-CNN'
    )
    parser.add_argument(
        '--need-maps', action='store_true', help='every image needs a COCO-stuff map, as for HTC'
    )
    parser.add_argument(
        '--allow-handled',
        action='store_true',
        help='exit 0 if a training handles all problems by itself; COCO has some of these',
    )
    args = parser.parse_args()

    splits = [(args.root / ann_file, args.root / folder) for ann_file, folder in args.split or ()]
    report = check_dataset(
        args.root,
        splits,
        decode=not args.sizes_only,
        need_masks=not args.boxes_only,
        need_maps=args.need_maps,
    )
    print(report.to_text())
    if report.is_harmful or (report.problems and not args.allow_handled):
        sys.exit(1)


if __name__ == '__main__':
    main()
