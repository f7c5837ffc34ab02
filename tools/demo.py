"""Train, evaluate and draw a small LESA Mask R-CNN on generated images: ``make demo``.

Further arguments go to tools/train.py, for example ``--cfg-options train_cfg.max_epochs=2``. A
demo that was interrupted goes on from its last epoch, one that was finished starts over.
"""

import os
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path

import torch
from mmdet.apis import init_detector
from mmdet.registry import DATASETS
from mmengine.config import Config, DictAction
from mmengine.device import get_device

from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.datasets.shapes import generate
from lesa_mmdet.engine.resume import find_newest, list_saved
from lesa_mmdet.utils.command import call, command
from lesa_mmdet.utils.configs import load_config
from lesa_mmdet.utils.devices import device_name
from lesa_mmdet.utils.paths import check_output
from lesa_mmdet.visualization.compare import draw_beside_truth
from lesa_mmdet.visualization.curves import plot_curves, read_scalars

CONFIG = 'configs/demo/mask-rcnn_lesa-r50-narrow_fpn_1xb8-8e_shapes-160.py'
COCO_CONFIG = 'configs/mask_rcnn/mask-rcnn_lesa-r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024.py'


@command
def main() -> None:
    os.chdir(Path(__file__).parents[1])
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    args, of_train = parser.parse_known_args()
    check_output(args.work_dir, '--work-dir', is_folder=True)
    cfg = load_config(CONFIG, read_options(of_train))
    generate(cfg.data_root)
    print(f'device: {device_name(torch.device(get_device()))}', flush=True)

    processes = count_processes(cfg.train_dataloader.batch_size)
    train = ['tools/dist_train.sh', CONFIG, str(processes), '--work-dir', str(args.work_dir)]
    train += [*resume(args.work_dir, cfg), *of_train]
    share = cfg.train_dataloader.batch_size // processes
    train += ['--cfg-options', f'train_dataloader.batch_size={share}']
    print('$', ' '.join(train), flush=True)
    failed = call(train, env=environment())
    if failed:
        sys.exit(failed)
    report(args.work_dir)


def count_processes(batch_size: int) -> int:
    """How many processes train: one on a GPU, else up to one a core, each with as many images.

    Batch norm needs four images in each: with two, box AP ends at 0.36 instead of 0.42.
    """
    cores = 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    most = max(min(cores, batch_size // 4), 1)
    return max(count for count in range(1, most + 1) if batch_size % count == 0)


def environment() -> dict[str, str]:
    """Variables for the launcher: this Python, a free port, and one thread a process.

    The operations of so small a model are not worth sharing between threads.
    """
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    return {'OMP_NUM_THREADS': '1', 'PORT': str(port), **os.environ, 'PATH': path}


def read_options(of_train: list[str]) -> dict:
    """The changes to the config that tools/train.py is told."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_known_args(of_train)[0].cfg_options or {}


def resume(work_dir: Path, cfg: Config) -> list[str]:
    """The option that continues an interrupted training, if there is one."""
    newest = find_newest(work_dir)
    if newest is None:
        return []
    reached = read_checkpoint(newest, map_location='cpu')['meta']['epoch']
    return ['--resume'] if reached < cfg.train_cfg.max_epochs else []


def report(work_dir: Path) -> None:
    """Draw curves and detections, and say where everything is."""
    config = work_dir / Path(CONFIG).name  # as trained, options included
    cfg = Config.fromfile(config)
    checkpoint = list_saved(work_dir)[0]
    model = init_detector(cfg, checkpoint, device=str(get_device()))
    detections, curves = work_dir / 'detections.png', work_dir / 'curves.png'
    draw_beside_truth(model, DATASETS.build(cfg.test_dataloader.dataset), detections)
    plot_curves(work_dir, curves)
    final = [entry for entry in read_scalars(work_dir) if 'coco/bbox_mAP' in entry][-1]
    print(f"""
Held-out images:  bbox AP {final['coco/bbox_mAP']:.3f}  \
segm AP {final['coco/segm_mAP']:.3f}

  detections  {detections}  (truth above, detections below)
  curves      {curves}
  checkpoint  {checkpoint}
  log         {max(work_dir.glob('*/*.log'))}

Next, see what it finds in your own images, and click on them to see where it looks:

  python tools/infer.py IMAGES {config} {checkpoint} --out-dir out
  make explore

With COCO 2017 in data/coco and the authors' ImageNet backbone in checkpoints/ (see README):

  tools/dist_train.sh {COCO_CONFIG} 8
""")


if __name__ == '__main__':
    main()
