"""Cut the objects out of COCO's images: a small data set for classification, a folder a class."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO
from tqdm import tqdm

from ..utils.errors import UserFileExistsError, UserFileNotFoundError, UserValueError
from ..utils.images import read_image
from .check import find_splits
from .coco import CHECK_HINT

STAMP = 'crops.json'  # says what a folder of crops was cut from, and how
JPEG_QUALITY = 95


def find_train_and_val(root: Path) -> dict[str, tuple[Path, Path]]:
    """The annotation files and image folders of COCO's two splits with objects.

    Args:
        root (Path): Folder with ``annotations/instances_*train*.json`` and ``*val*.json``.

    Returns:
        dict[str, tuple[Path, Path]]: File and folder of 'train' and 'val'.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If several could be meant.
    """
    found = find_splits(root)
    splits = {}
    for split in ('train', 'val'):
        matching = [pair for pair in found if split in pair[0].stem]
        if not matching:
            raise UserFileNotFoundError(
                f'{root} has no annotations/instances_*{split}*.json: name annotation files and '
                'image folders with --split'
            )
        if len(matching) > 1:
            names = ', '.join(ann_file.name for ann_file, _ in matching)
            raise UserValueError(
                f'{root} has several files for {split}, {names}: name one with --split'
            )
        splits[split] = matching[0]
    return splits


def cut_crops(
    splits: Mapping[str, tuple[Path, Path]],
    out: Path,
    *,
    classes: int | Sequence[str] = 10,
    min_size: int = 32,
    context: float = 0.1,
    square: bool = False,
    max_per_class: int | None = None,
) -> dict[str, dict[str, int]]:
    """Write a crop of every object to ``out/SPLIT/CLASS/IMAGE_ANNOTATION.jpg``.

    Crowds are left out. The same arguments give the same files, byte for byte; those that are
    there already stay, so that a run that was interrupted goes on.

    Args:
        splits (Mapping[str, tuple[Path, Path]]): COCO annotation file and image folder of each
            split. The first split decides about the classes; all splits get a folder for each.
        out (Path): Folder to write to, made when missing.
        classes (int | Sequence[str]): The classes with most objects, so many, or names.
        min_size (int): Pixels that the shorter side of an object's box must have in the image.
        context (float): Margin on each side of the box, as a fraction of its width or height.
        square (bool): Widen the shorter side to the longer one. Where that leaves the image the
            crop is moved; it is not square if the image is too small.
        max_per_class (int, optional): Crops of a class in a split, evenly spread over the
            annotation file. Defaults to all.

    Returns:
        dict[str, dict[str, int]]: Number of crops by split and class.

    Raises:
        FileNotFoundError: If an annotation file, an image folder or an image is missing.
        FileExistsError: If ``out`` has something else in it, or crops cut in another way.
        ValueError: If a number is too small, a class unknown or without objects, there are fewer
            classes than asked for, or a file is damaged.
    """
    for name, value, minimum in (
        ('classes', classes, 1),
        ('min_size', min_size, 1),
        ('context', context, 0),
        ('max_per_class', max_per_class, 1),
    ):
        if isinstance(value, (int, float)) and not value >= minimum:
            raise UserValueError(f'{name} is {value}, but must be at least {minimum}')

    cocos = {split: _read_annotations(*paths) for split, paths in splits.items()}
    objects = {split: _find_objects(coco, min_size) for split, coco in cocos.items()}
    first = next(iter(splits))
    classes = _choose_classes(
        classes, objects[first], f'{splits[first][0]}, with boxes of at least {min_size} pixels'
    )
    _claim(
        out,
        splits={split: [str(path.resolve()) for path in paths] for split, paths in splits.items()},
        classes=classes,
        min_size=min_size,
        context=context,
        square=square,
        max_per_class=max_per_class,
    )
    counts = {}
    for split, (_, folder) in splits.items():
        chosen = {name: _spread(objects[split].get(name, []), max_per_class) for name in classes}
        counts[split] = {name: len(of_class) for name, of_class in chosen.items()}
        crops = {}  # by image: each is read once
        for name, of_class in chosen.items():
            (out / split / name).mkdir(parents=True, exist_ok=True)
            for entry in of_class:
                image = cocos[split].imgs[entry['image_id']]
                crop = f'{Path(image["file_name"]).stem}_{entry["id"]}.jpg'
                window = find_window(
                    entry['bbox'], (image['width'], image['height']), context, square
                )
                crops.setdefault(image['id'], {})[out / split / name / crop] = window
        for image_id, windows in tqdm(crops.items(), desc=f'images of {split}'):
            _cut_image(cocos[split].imgs[image_id], folder, windows)
    return counts


def find_window(
    box: Sequence[float], image_size: tuple[int, int], context: float, square: bool
) -> tuple[int, int, int, int]:
    """The part of an image that shows an object.

    Args:
        box (Sequence[float]): Its [x, y, width, height] in pixels.
        image_size (tuple[int, int]): (width, height) in pixels.
        context (float): See :func:`cut_crops`.
        square (bool): See :func:`cut_crops`.

    Returns:
        tuple[int, int, int, int]: Left, top, right and bottom in pixels, the last two exclusive.
    """
    x, y, w, h = box
    sides = np.array([w, h]) * (1 + 2 * context)
    if square:
        sides[:] = sides.max()
    # Not from the middle of the box: rounding could move the window off its border.
    start = np.floor(np.array([x, y]) - (sides - [w, h]) / 2)
    sides = np.ceil(sides)
    if square:
        start = np.clip(start, 0, np.maximum(0, image_size - sides))
    end = np.minimum(start + sides, image_size)
    return tuple(np.concatenate((np.maximum(start, 0), end)).astype(int).tolist())


def measure_colors(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the crops' pixels, as a ``data_preprocessor`` takes them.

    Args:
        folder (Path): A split: a folder of classes. Each crop weighs the same, as in a training,
            which resizes them to one size.

    Returns:
        tuple[list[float], list[float]]: Of red, green and blue, 0 to 255.
    """
    moments = []
    for path in tqdm(sorted(folder.glob('*/*.jpg')), desc='mean and std'):
        mean, std = cv2.meanStdDev(read_image(path))
        moments.append((mean, std**2 + mean**2))
    mean, square = np.mean(moments, axis=0)[..., 0]
    return mean.tolist(), np.sqrt(square - mean**2).tolist()


def _read_annotations(ann_file: Path, folder: Path) -> COCO:
    if not ann_file.is_file():
        raise UserFileNotFoundError(f'no annotation file {ann_file}: name it with --split')
    if not folder.is_dir():
        raise UserFileNotFoundError(
            f'no image folder {folder} for {ann_file}: name it with --split'
        )
    try:
        return COCO(ann_file)
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise UserValueError(
            f'{ann_file} is no annotation file of COCO ({type(error).__name__}: {error}): '
            f'{CHECK_HINT}'
        ) from error


def _find_objects(coco: COCO, min_size: int) -> dict[str, list[dict]]:
    """Objects of all classes, with boxes cut at the borders of their images."""
    objects = {category['name']: [] for category in coco.cats.values()}
    for entry in coco.anns.values():
        image = coco.imgs[entry['image_id']]
        x, y, w, h = entry['bbox']
        right, bottom = min(x + w, image['width']), min(y + h, image['height'])
        x, y = max(x, 0), max(y, 0)
        if not entry.get('iscrowd') and min(right - x, bottom - y) >= min_size:
            name = coco.cats[entry['category_id']]['name']
            objects[name].append({**entry, 'bbox': [x, y, right - x, bottom - y]})
    return objects


def _choose_classes(
    classes: int | Sequence[str], objects: dict[str, list[dict]], where: str
) -> list[str]:
    have = Counter({name: len(of_class) for name, of_class in objects.items() if of_class})
    if isinstance(classes, int):
        if classes > len(have):
            raise UserValueError(
                f'{classes} classes are asked for, but there are {len(have)} in {where}'
            )
        classes = [name for name, _ in have.most_common(classes)]
    for name in classes:
        if name not in objects:
            raise UserValueError(f'unknown class {name!r}; there are: {", ".join(objects)}')
        if name not in have:
            raise UserValueError(f'class {name!r} has no objects in {where}')
        if name in ('.', '..') or Path(name).name != name:
            raise UserValueError(f'class {name!r} cannot be the name of a folder')
    return list(classes)


def _claim(out: Path, **options) -> None:
    """Note what is going to be in a folder, unless it is that already."""
    stamp, text = out / STAMP, json.dumps(options, indent=1)
    if stamp.is_file():
        if stamp.read_text(encoding='utf-8') != text:
            raise UserFileExistsError(
                f'{out} has crops that were cut in another way, see {stamp}: delete it, or name '
                'another folder'
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserFileExistsError(f'{out} exists, but not as a folder of crops: name another one')
    out.mkdir(parents=True, exist_ok=True)
    _write(stamp, text.encode())


def _spread(entries: list[dict], number: int | None) -> list[dict]:
    if number is None or number >= len(entries):
        return entries
    return [entries[i] for i in np.linspace(0, len(entries) - 1, number).astype(int)]


def _cut_image(image: dict, folder: Path, windows: dict[Path, tuple[int, int, int, int]]) -> None:
    """Write those crops of an image that are not there."""
    windows = {path: window for path, window in windows.items() if not path.is_file()}
    if not windows:
        return
    source = folder / image['file_name']
    if not source.is_file():
        raise UserFileNotFoundError(f'image {source} is missing: {CHECK_HINT}')
    pixels = cv2.imread(str(source))
    if pixels is None:
        raise UserValueError(f'{source} is no image, or its data is damaged: {CHECK_HINT}')
    height, width = pixels.shape[:2]
    if (width, height) != (image['width'], image['height']):
        raise UserValueError(
            f'image {source} is {width} x {height}, but annotated as {image["width"]} x '
            f'{image["height"]}: {CHECK_HINT}'
        )
    for path, (left, top, right, bottom) in windows.items():
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        done, encoded = cv2.imencode('.jpg', pixels[top:bottom, left:right], quality)
        if not done:
            raise UserValueError(f'{path} cannot be written: too large for a JPEG')
        _write(path, encoded.tobytes())


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically: it is there completely, or not at all."""
    part = path.with_name(f'{path.name}.part')
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
