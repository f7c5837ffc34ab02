"""Running a model on images and videos.

In the output folder are

* ``vis/``: the drawings;
* ``predictions.json``: results as pycocotools' ``COCO.loadRes`` takes them;
* ``images.json``: the images and categories that their ids stand for;
* ``records.jsonl``: one line an image or video that is done. From it, the next run goes on.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from ..utils.errors import UserValueError
from ..utils.images import IMAGE_SUFFIXES, VideoWriter, find_images, read_image, write_image
from .load import load_model
from .predictors import Predictor
from .records import VIDEO_SUFFIXES, Records, is_video, stamp


@dataclass
class Report:
    """What became of the images and videos that were asked for.

    Attributes:
        done (int): Images and videos that were run.
        skipped (int): Those that were done before.
        unreadable (dict[str, str]): Those that could not be read or drawn, and why.
    """

    done: int = 0
    skipped: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def infer(
    sources: str | Path | Iterable[str | Path],
    config: str | Path,
    checkpoint: str | Path,
    out_dir: str | Path,
    *,
    batch_size: int = 1,
    score_thr: float = 0.3,
    device: str = 'cpu',
    cfg_options: dict | None = None,
) -> Report:
    """Run a detector or classifier on images and videos, and write what it finds.

    What a former run with the same model has left in the folder is kept and not done again.

    Args:
        sources (str | Path | Iterable[str | Path]): Files, folders, patterns and URLs of images,
            and videos, or one of them.
        config (str | Path): Config of a detector or, with mmpretrain, a classifier.
        checkpoint (str | Path): Its checkpoint, a file or URL.
        out_dir (str | Path): Folder to write to.
        batch_size (int): Images a step.
        score_thr (float): Detections below are not drawn; ``predictions.json`` has all.
        device (str): Device to run on.
        cfg_options (dict, optional): Changes to the config.

    Returns:
        Report: What was done, what was there before, and what could not be read.

    Raises:
        FileNotFoundError: If a source, the config or the checkpoint does not exist.
        ValueError: If batch_size is not positive, the checkpoint is not of the model, or the folder
            has results of another model.
    """
    if batch_size < 1:
        raise UserValueError(f'the batch size has to be at least 1, got {batch_size}')
    sources = dict.fromkeys(find_images(sources, IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    model = load_model(config, checkpoint, device, cfg_options)
    settings = dict(
        config=_digest(model.cfg.to_dict()),
        checkpoint=[str(checkpoint), stamp(checkpoint)],
        score_thr=score_thr,
    )
    records = Records(Path(out_dir).expanduser(), settings)
    runner = Runner(Predictor.of(model), records, batch_size, score_thr)
    todo = [source for source in sources if not records.has(source)]
    report = Report(skipped=len(sources) - len(todo))
    try:
        with tqdm(desc='images', unit='image', total=len(todo)) as progress:
            for source, problem in runner.run(todo, progress):
                if problem:
                    report.unreadable[source] = problem
                else:
                    report.done += 1
    finally:
        records.write_results(runner.predictor.categories())
        records.close()
    return report


class Runner:
    """Runs a predictor on sources, and keeps its drawings and results in the records."""

    def __init__(
        self, predictor: Predictor, records: Records, batch_size: int, score_thr: float
    ) -> None:
        self.predictor, self._records = predictor, records
        self._batch_size, self._score_thr = batch_size, score_thr

    def run(self, sources: Sequence[str], progress: tqdm) -> Iterator[tuple[str, str | None]]:
        """Run everything; yields each source with the reason why it could not be read, if any."""
        images = [source for source in sources if not is_video(source)]
        for start in range(0, len(images), self._batch_size):
            batch = {}
            for source in images[start : start + self._batch_size]:
                try:
                    batch[source] = read_image(source)
                except (FileNotFoundError, ValueError) as error:
                    yield source, str(error)
                    progress.update()
            for source, (drawn, image) in zip(
                batch, self._predict(list(batch.values())), strict=True
            ):
                name = self._records.name(source)
                try:
                    write_image(drawn, self._records.drawing(name))
                except ValueError as error:
                    yield source, f'image {source}: {error}'
                else:
                    self._records.add(source, name, [dict(file_name=name, **image)])
                    yield source, None
                progress.update()
        for source in filter(is_video, sources):
            try:
                self._run_video(source, progress)
            except ValueError as error:
                yield source, str(error)
            else:
                yield source, None
            progress.update()

    def _predict(self, images: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, dict]]:
        """Drawings, and sizes with results, of RGB images."""
        samples = self.predictor.predict(images) if images else ()
        for image, sample in zip(images, samples, strict=True):
            height, width = image.shape[:2]
            results = self.predictor.describe(sample)
            drawn = self.predictor.draw(image, sample, self._score_thr)
            yield drawn, dict(height=height, width=width, results=results)

    def _run_video(self, source: str, progress: tqdm) -> None:
        """Run a video frame by frame.

        Raises:
            ValueError: If it has no frame that can be read, or cannot be drawn.
        """
        video = cv2.VideoCapture(source)
        name = self._records.name(source)
        announced = int(max(0, video.get(cv2.CAP_PROP_FRAME_COUNT)))
        progress.total += announced
        frames, writer = [], None
        try:
            while batch := self._read_frames(video):
                for drawn, frame in self._predict(batch):
                    if writer is None:
                        path, fps = self._records.drawing(name), video.get(cv2.CAP_PROP_FPS)
                        writer = VideoWriter(path, fps, drawn.shape[1::-1])
                    writer.write(drawn)
                    frames.append(dict(file_name=f'{name}/frame_{len(frames):06d}', **frame))
                progress.update(len(batch))
        finally:
            video.release()
            if writer:
                writer.close()
        if not frames:
            raise UserValueError(f'video {source} cannot be read: it is no video, or broken')
        if len(frames) < announced:
            print_log(
                f'video {source}: only {len(frames)} of {announced} frames can be read',
                logger='current',
                level=logging.WARNING,
            )
        self._records.add(source, name, frames)

    def _read_frames(self, video: cv2.VideoCapture) -> list[np.ndarray]:
        """The next frames of a video, RGB; none at its end."""
        frames = []
        while len(frames) < self._batch_size:
            read, frame = video.read()
            if not read:
                break
            frames.append(mmcv.bgr2rgb(frame))
        return frames


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
