"""Run a detector or classifier on images and videos: drawings, and results in COCO's format.

Started again with the same --out-dir, it goes on where it was. Example: tools/infer.py photos/
CONFIG CHECKPOINT --out-dir out
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from lesa_mmdet.apis import infer
from lesa_mmdet.utils.command import add_model_options, command
from lesa_mmdet.utils.paths import check_output


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        'images', nargs='+', help='files, folders, quoted patterns, URLs; images or videos'
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/infer'), help='default: %(default)s'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='default: %(default)s')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='do not draw detections below; predictions.json has all; default: %(default)s',
    )
    add_model_options(parser)
    args = parser.parse_args()
    check_output(args.out_dir, '--out-dir', is_folder=True)
    report = infer(
        args.images,
        args.config,
        args.checkpoint,
        args.out_dir,
        batch_size=args.batch_size,
        score_thr=args.score_thr,
        device=args.device,
        cfg_options=args.cfg_options,
    )
    print(
        f'{report.done} done, {report.skipped} were there already: drawings in '
        f'{args.out_dir / "vis"}, results in {args.out_dir / "predictions.json"}'
    )
    if report.unreadable:
        problems = ''.join(f'\n  {problem}' for problem in report.unreadable.values())
        sys.exit(f'error: {len(report.unreadable)} could not be read:{problems}')


if __name__ == '__main__':
    main()
