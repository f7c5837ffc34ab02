"""Detect objects in COCO's test-dev images, and write the zip files for the evaluation server.

Further arguments go to tools/test.py. Without CHECKPOINT only the config of the test is written,
for a launcher of your own, like tools/slurm_test.sh.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from mmengine.config import DictAction

from lesa_mmdet.evaluation.submission import configure
from lesa_mmdet.utils.command import call, command
from lesa_mmdet.utils.configs import load_config
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.paths import TRAIN_HINT, check_exists, check_output

TOOLS = Path(__file__).parent
SWITCH = TOOLS.parent / 'configs' / '_base_' / 'datasets' / 'test_dev2017.py'


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--gpus', type=int, default=1, help='processes on this machine')
    parser.add_argument('--algorithm', help='name on the server; default: that of the config')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/CONFIG_test-dev')
    parser.add_argument('--ann-file', help='list of the images, instead of test-dev')
    parser.add_argument('--img', help='their folder, instead of test2017/')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args, of_test = parser.parse_known_args()

    if args.gpus < 1:
        raise UserValueError(f'--gpus has to be at least 1, also without a GPU, got {args.gpus}')
    cfg = load_config(str(args.config), args.cfg_options)
    check_exists(args.checkpoint or '', 'checkpoint', TRAIN_HINT)
    switch = load_config(str(SWITCH))
    switch.merge_from_dict({k: v for k in ('ann_file', 'img') if (v := getattr(args, k))})
    work_dir = args.work_dir or Path('work_dirs') / f'{args.config.stem}_test-dev'
    test_config = work_dir / f'{args.config.stem}_test-dev.py'
    check_output(work_dir, '--work-dir', is_folder=True)
    cfg = configure(cfg, switch, args.algorithm or args.config.stem, work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    cfg.dump(test_config)
    print(f'config: {test_config}', flush=True)
    if args.checkpoint is None:
        return

    arguments = [sys.executable, str(TOOLS / 'test.py'), str(test_config), args.checkpoint]
    if args.gpus > 1:
        arguments = [str(TOOLS / 'dist_test.sh'), *arguments[2:], str(args.gpus)]
    sys.exit(call([*arguments, '--work-dir', str(work_dir), *of_test]))


if __name__ == '__main__':
    main()
