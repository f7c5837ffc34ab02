"""Pictures of a training run: its curves, and its detections beside the truth."""

import json
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.figure import Figure
from mmdet.apis import inference_detector
from mmdet.visualization import DetLocalVisualizer
from torch import nn
from torch.utils.data import Dataset


def read_scalars(work_dir: Path) -> list[dict]:
    """What the training in a work directory logged, over all the runs it was resumed by.

    Args:
        work_dir (Path): Work directory of mmengine; every run has a dated folder in it.

    Returns:
        list[dict]: One dict a logging step. Training: ``loss``, ``lr``, ``epoch``, ``iter``, ...;
        evaluation: ``coco/bbox_mAP``, ..., and ``step``, the epoch.

    Raises:
        FileNotFoundError: If no run has logged anything there.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'no */vis_data/scalars.json in {work_dir}: nothing was logged')
    scalars = []
    for log in logs:
        run = [json.loads(line) for line in log.read_text().splitlines()]
        # A run takes up, or starts over, what the one before did from this epoch on.
        first = min((_epoch(entry) for entry in run), default=float('inf'))
        scalars = [entry for entry in scalars if _epoch(entry) < first] + run
    return scalars


def _epoch(entry: dict) -> int:
    return entry.get('epoch', entry['step'])


def plot_curves(work_dir: Path, path: Path) -> None:
    """Draw losses against iterations and COCO AP against epochs.

    Args:
        work_dir (Path): Work directory of mmengine.
        path (Path): PNG to write.
    """
    scalars = read_scalars(work_dir)
    train = {entry['iter']: entry for entry in scalars if 'loss' in entry}
    val = {entry['step']: entry for entry in scalars if 'coco/bbox_mAP' in entry}
    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    for name in sorted(key for key in next(iter(train.values())) if 'loss' in key):
        width = 2.5 if name == 'loss' else 1
        left.plot(list(train), [train[i].get(name) for i in train], label=name, lw=width)
    left.set(xlabel='iteration', ylabel='training loss', yscale='log')
    for kind in ('bbox', 'segm'):
        values = [val[epoch].get(f'coco/{kind}_mAP') for epoch in val]
        right.plot(list(val), values, 'o-', label=f'{kind} AP')
    right.set(xlabel='epoch', ylabel='COCO AP, validation images', ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_detections(
    model: nn.Module,
    dataset: Dataset,
    path: Path,
    *,
    num_images: int = 6,
    score_thr: float = 0.5,
) -> None:
    """Draw images of a data set, the truth above and a model's detections below.

    Args:
        model (nn.Module): Detector of ``mmdet.apis.init_detector``.
        dataset (Dataset): Test data set with annotations.
        path (Path): PNG to write.
        num_images (int): Number of images, evenly spread over the data set.
        score_thr (float): Detections below are left out.
    """
    visualizer = DetLocalVisualizer(alpha=0.4)
    visualizer.dataset_meta = dataset.metainfo
    columns = []
    for index in np.linspace(0, len(dataset) - 1, num_images).astype(int):
        sample = dataset[int(index)]['data_samples']
        image = mmcv.imread(sample.img_path, channel_order='rgb')
        detected = inference_detector(model, sample.img_path)
        detected.gt_instances = sample.gt_instances
        detected.gt_instances.bboxes = detected.gt_instances.bboxes.tensor
        visualizer.add_datasample(
            str(index), image, detected, draw_gt=True, draw_pred=True, pred_score_thr=score_thr
        )
        truth, prediction = np.split(visualizer.get_image(), 2, axis=1)
        columns.append(np.concatenate((truth, prediction)))
    mmcv.imwrite(mmcv.rgb2bgr(np.concatenate(columns, axis=1)), str(path))
