"""Detections with the truth, and those of several models on the same images, side by side."""

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.figure import Figure
from mmdet.apis import inference_detector
from mmdet.models import BaseDetector
from mmdet.visualization import DetLocalVisualizer
from torch import nn
from torch.utils.data import Dataset

from ..utils.errors import UserValueError
from ..utils.images import read_image, write_image
from ..utils.text import readable

COLUMN_WIDTH = 5  # inches


def draw_detections(model: nn.Module, image: str | Path, score_thr: float = 0.3) -> np.ndarray:
    """Draw a detector's detections into an image.

    Args:
        model (nn.Module): Detector of :func:`lesa_mmdet.apis.load.load_model`.
        image (str | Path): Image file or URL.
        score_thr (float): Detections below are left out.

    Returns:
        np.ndarray: uint8 (H, W, 3), RGB.

    Raises:
        FileNotFoundError: If there is no such image.
        ValueError: If the file holds no image, or the model is no detector.
    """
    if not isinstance(model, BaseDetector):
        raise UserValueError(f'{type(model).__name__} is no detector: only detections are compared')
    pixels = read_image(image)
    visualizer = DetLocalVisualizer(alpha=0.4)
    visualizer.dataset_meta = model.dataset_meta
    detected = inference_detector(model, mmcv.rgb2bgr(pixels))
    visualizer.add_datasample(
        Path(image).name, pixels, detected, draw_gt=False, pred_score_thr=score_thr
    )
    return visualizer.get_image()


def draw_comparison(
    columns: Sequence[Sequence[np.ndarray]], titles: Sequence[str], names: Sequence[str]
) -> Figure:
    """Draw images in a grid.

    Args:
        columns (Sequence[Sequence[np.ndarray]]): By model the images (H, W, 3), RGB. Those of a
            row have the same size.
        titles (Sequence[str]): Titles of the columns.
        names (Sequence[str]): Names of the rows.

    Returns:
        Figure: One column a model, one row an image.
    """
    heights = [COLUMN_WIDTH * image.shape[0] / image.shape[1] for image in columns[0]]
    figure = Figure(figsize=(COLUMN_WIDTH * len(columns), sum(heights) + 0.5), layout='constrained')
    grid = figure.subplots(
        len(names), len(columns), squeeze=False, gridspec_kw=dict(height_ratios=heights)
    )
    for column_axes, column, title in zip(grid.T, columns, titles, strict=True):
        column_axes[0].set_title(readable(title), fontsize=9)
        for axes, image in zip(column_axes, column, strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(readable(name))
    return figure


def draw_beside_truth(
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
        image = read_image(sample.img_path)
        detected = inference_detector(model, mmcv.rgb2bgr(image))
        detected.gt_instances = sample.gt_instances
        detected.gt_instances.bboxes = detected.gt_instances.bboxes.tensor
        visualizer.add_datasample(
            str(index), image, detected, draw_gt=True, draw_pred=True, pred_score_thr=score_thr
        )
        truth, prediction = np.split(visualizer.get_image(), 2, axis=1)
        columns.append(np.concatenate((truth, prediction)))
    write_image(np.concatenate(columns, axis=1), path)
