"""Writes a data set whose images a function draws, in COCO format: all of it, or nothing."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from tqdm import tqdm

from ..utils.errors import UserValueError

SPLITS = ('train', 'val')
MIN_IMAGE_SIZE = 64


def make_generate(
    draw_image: Callable, classes: Sequence[str], **drawing
) -> Callable[..., pathlib.Path]:
    """Makes a function ``generate`` that writes a data set; arguments: :func:`write_data_set`."""

    def generate(root, *, num_train=600, num_val=150, image_size=192, seed=0) -> pathlib.Path:
        """Writes the data set, unless ``root`` already holds it complete.

        The same arguments give the same files, byte for byte.

        Args:
            root (str | os.PathLike): Folder to write to, made when missing. Which files it gets:
                :func:`~lesa_mmdet.datasets.generated.write_data_set`.
            num_train (int): Number of training images, at least 1.
            num_val (int): Number of validation images, at least 1.
            image_size (int): Height and width of the images in pixels, at least 64. COCO's large
                objects (96 x 96 pixels and more) need about 180.
            seed (int): Seed of the random numbers, at least 0.

        Returns:
            pathlib.Path: ``root``.

        Raises:
            ValueError: If a number is not an integer or below its minimum.
            OSError: If a file cannot be written.
        """
        sizes = dict(num_train=num_train, num_val=num_val, image_size=image_size)
        return write_data_set(root, draw_image, classes, drawing, **sizes, seed=seed)

    return generate


def write_data_set(
    root, draw_image: Callable, classes: Sequence[str], drawing: dict, **arguments: int
) -> pathlib.Path:
    """Writes the data set, unless ``root`` already holds it complete.

    Below ``root`` it writes, and on a rebuild replaces, ``{train,val}/shapes_*.jpg``,
    ``annotations/{train,val}.json`` and, last, ``dataset.json`` with drawing and arguments; it
    leaves other files alone.

    Args:
        root (str | os.PathLike): Folder to write to, made when missing.
        draw_image (Callable): Takes a ``np.random.Generator`` and the image size; returns the
            image, uint8 (H, W, 3) BGR, and a list of class index and mask, bool (H, W).
        classes (Sequence[str]): Names of the classes.
        drawing (dict): What else the images depend on; another drawing is built anew.
        **arguments (int): ``num_train`` and ``num_val``, numbers of images; ``image_size``, their
            height and width in pixels; ``seed`` of the random numbers.

    Returns:
        pathlib.Path: ``root``.

    Raises:
        ValueError: If a number is not an integer or below its minimum.
        OSError: If a file cannot be written.
    """
    minimums = {'num_train': 1, 'num_val': 1, 'image_size': MIN_IMAGE_SIZE, 'seed': 0}
    for name, minimum in minimums.items():
        value = arguments[name]
        if not isinstance(value, int) or value < minimum:
            raise UserValueError(
                f'{name} is {value!r}, but must be an integer of at least {minimum}.'
            )

    root = pathlib.Path(root)
    stamp, stamp_text = root / 'dataset.json', json.dumps({**drawing, **arguments})
    counts = {split: arguments[f'num_{split}'] for split in SPLITS}
    files = [root / split / _file_name(i) for split in SPLITS for i in range(counts[split])]
    files += [root / 'annotations' / f'{split}.json' for split in SPLITS]
    stamp_matches = stamp.is_file() and stamp.read_text(encoding='utf-8') == stamp_text
    if stamp_matches and all(file.is_file() for file in files):
        return root

    stamp.unlink(missing_ok=True)
    for split in SPLITS:
        for stale in (root / split).glob('shapes_*.jpg'):
            stale.unlink()
    for folder in (*SPLITS, 'annotations'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index, split in enumerate(SPLITS):
        seeds = [[arguments['seed'], index, image] for image in range(counts[split])]
        _write_split(root, split, draw_image, classes, arguments['image_size'], seeds)
    _write_text(stamp, stamp_text)
    return root


def mask_to_polygons(mask):
    """Outlines a mask without holes.

    Args:
        mask (np.ndarray): bool (H, W).

    Returns:
        list[list[float]]: One polygon ``[x0, y0, x1, y1, ...]`` per connected part, in COCO
        coordinates: pixels, with (0, 0) the corner, not the centre, of the first pixel.
    """
    # Contours run through pixel centres. On a doubled mask these lie a quarter of a pixel
    # within the true edge, so that pycocotools gets the mask back.
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((contour.ravel() + 0.5) / 2).tolist() for contour in contours]


def _write_split(root, split, draw_image, classes, image_size, seeds):
    images, annotations = [], []
    for index, seed in enumerate(tqdm(seeds, desc=f'drawing {split} images')):
        image, shapes = draw_image(np.random.default_rng(seed), image_size)
        _, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        (root / split / _file_name(index)).write_bytes(encoded.tobytes())
        image_id = index + 1
        images.append(
            {
                'id': image_id,
                'file_name': _file_name(index),
                'width': image_size,
                'height': image_size,
            }
        )
        for class_index, mask in shapes:
            annotation_id = len(annotations) + 1
            annotations.append(_annotation(annotation_id, image_id, class_index, mask))
    coco = {
        'info': {'description': 'Synthetic shapes of lesa_mmdet'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': i, 'name': name, 'supercategory': 'shape'}
            for i, name in enumerate(classes, start=1)
        ],
    }
    _write_text(root / 'annotations' / f'{split}.json', json.dumps(coco))


def _annotation(annotation_id, image_id, class_index, mask):
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': class_index + 1,
        'segmentation': mask_to_polygons(mask),
        'bbox': [float(value) for value in cv2.boundingRect(mask.astype(np.uint8))],
        'area': float(mask.sum()),
        'iscrowd': 0,
    }


def _file_name(index):
    return f'shapes_{index:06d}.jpg'


def _write_text(path, text):
    """Writes a file atomically: it is there completely, or not at all."""
    partial = path.with_name(path.name + '.tmp')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)
