"""Find what is wrong with a data set before a training does."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..utils.errors import UserFileNotFoundError, UserValueError
from ..utils.paths import open_regular
from ..utils.schema import TEXT, Kind, optional, read_json, require, whole
from ..utils.text import shown
from .boxes import is_number, is_of_corners
from .ids import NO_NUMBER, NOT_MATCHED, TWO_KINDS, are_of_one_kind, to_number
from .masks import find_mask_bounds, find_mask_problem
from .problems import Problem

# Images and objects, by cocodataset.org.
COCO_COUNTS = {
    'instances_train2017.json': (118_287, 860_001),
    'instances_val2017.json': (5_000, 36_781),
    'image_info_test-dev2017.json': (20_288, 0),
    'image_info_test2017.json': (40_670, 0),
}
STUFF_LABELS = [*range(183), 255]  # 255: no label
ROUNDING = 0.5  # pixels that a box may leave its image
# Pillow takes larger images for an attack. OpenCV, which reads them for a training, takes 2^30.
Image.MAX_IMAGE_PIXELS = 2**30
_SIDE = whole(1, 2**17)  # pixels
# All that a training takes for an id; what evaluation does not take is said below.
_ID = Kind('a number or text', lambda v: isinstance(v, (int, float, str)))
_ID_OR_NONE = optional(_ID)
_ANNOTATIONS = {
    'images': [{'id': _ID_OR_NONE, 'file_name': TEXT, 'height': _SIDE, 'width': _SIDE}],
    'categories': [{'id': _ID, 'name': TEXT}],
    'annotations?': [{'id': _ID_OR_NONE, 'image_id': _ID_OR_NONE, 'category_id': _ID}],
}
MAX_DECODED = 1 << 28  # pixels of an image; a gigabyte of colors
MAX_AT_ONCE = 1 << 24  # pixels of one that is decoded beside others
ORIENTATION = 0x0112  # EXIF: 5 to 8 are turned by 90 degrees
_one_at_a_time = Lock()


@dataclass
class Report:
    """What was looked at, and what is wrong.

    Attributes:
        counts (dict[str, int]): Number of things looked at, by their name.
        problems (dict[Problem, list[str]]): Descriptions by kind.
    """

    counts: dict[str, int] = field(default_factory=dict)
    problems: dict[Problem, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: Problem, text: str) -> None:
        """Note a problem; what the text quotes of files is escaped and cut."""
        self.problems[kind].append(shown(text, 300))

    @property
    def is_harmful(self) -> bool:
        """Whether there is a problem that a training does not handle by itself."""
        return any(kind.harmful for kind in self.problems)

    def to_text(self, first: int = 5) -> str:
        """Format it for reading.

        Args:
            first (int): How many problems of a kind to describe.
        """
        lines = [f'{count:>9,}  {shown(name, 300)}' for name, count in self.counts.items()]
        for kind in Problem:
            found = self.problems.get(kind, [])
            if found:
                lines += ['', f'{kind.title}: {len(found):,} (training: {kind.effect})']
                lines += [f'    {text}' for text in found[:first]]
            if len(found) > first:
                lines.append(f'    ... {len(found) - first:,} more')
        total = sum(map(len, self.problems.values()))
        handled = '' if self.is_harmful or not total else ', all of which a training handles'
        return '\n'.join([*lines, '', f'{total:,} problems{handled}'])


def check_dataset(
    root: Path,
    splits: Iterable[tuple[Path, Path]] | None = None,
    *,
    decode: bool = True,
    need_masks: bool = True,
    need_maps: bool = False,
) -> Report:
    """Check annotations, images and, where there are some, COCO-stuff maps.

    Args:
        root (Path): Folder in COCO's layout: ``annotations/``, ``train2017/``, ...,
            ``stuffthingmaps/train2017/``, ...
        splits (Iterable[tuple[Path, Path]], optional): Annotation files and their image folders.
            Defaults to ``find_splits(root)``.
        decode (bool): Whether to decode every image, or just look at its size.
        need_masks (bool): Whether objects have to have masks, as for a Mask R-CNN.
        need_maps (bool): Whether every image has to have a COCO-stuff map, as for HTC.

    Returns:
        Report: What was found.

    Raises:
        FileNotFoundError: If there is no annotation file.
    """
    report = Report()
    for ann_file, folder in splits or find_splits(root):
        images = _check_annotations(ann_file, need_masks, report)
        paths = [folder / image['file_name'] for image in images]
        found = _check_images(images, paths, decode, report)
        report.counts[f'images of {ann_file.name} in {folder.name}/'] = found
        maps = Path(root) / 'stuffthingmaps' / folder.name
        if need_maps or maps.is_dir():
            paths = [maps / f'{path.stem}.png' for path in paths]
            found = _check_maps(images, paths, need_maps, report)
            report.counts[f'maps of {ann_file.name} in stuffthingmaps/{folder.name}/'] = found
    return report


def find_splits(root: Path) -> list[tuple[Path, Path]]:
    """Pair annotation files with image folders.

    Args:
        root (Path): Folder with ``annotations/instances_*.json`` or ``image_info_*.json``.

    Returns:
        list[tuple[Path, Path]]: File, and the folder of ``root`` with the longest name that is in
        the file's: ``instances_val2017_mini.json`` has ``val2017/``, test-dev ``test2017/``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    root = Path(root)
    patterns = ('instances_*.json', 'image_info_*.json')
    ann_files = [path for p in patterns for path in sorted((root / 'annotations').glob(p))]
    if not ann_files:
        raise UserFileNotFoundError(
            f'{root} has no annotations/instances_*.json or image_info_*.json: name annotation '
            'files and image folders with --split, or get COCO with tools/download_coco.py'
        )
    folders = sorted((f for f in root.iterdir() if f.is_dir()), key=lambda f: -len(f.name))
    splits = []
    for ann_file in ann_files:
        split = re.sub('^(instances|image_info)_', '', ann_file.stem).replace('test-dev', 'test')
        folder = next((folder for folder in folders if folder.name in split), root / split)
        splits.append((ann_file, folder))
    return splits


def _check_annotations(ann_file: Path, need_masks: bool, report: Report) -> list[dict]:
    """Check everything but the files of the images. Returns the images."""

    def note(kind: Problem, text: str) -> None:
        report.add(kind, f'{ann_file.name}: {text}')

    try:
        images, objects, categories = _read_annotations(ann_file)
    except FileNotFoundError as error:
        raise UserFileNotFoundError(
            f'no annotation file {ann_file}: name it with --split'
        ) from error
    except (OSError, ValueError) as error:
        note(Problem.FILE_UNREADABLE, str(error))
        return []
    report.counts[f'objects of {ann_file.name}'] = len(objects)

    counts, expected = (len(images), len(objects)), COCO_COUNTS.get(ann_file.name)
    if expected and counts != expected:
        note(
            Problem.COUNTS_DIFFER,
            'images and objects: {} and {}, in COCO {} and {}'.format(
                *(f'{number:,}' for number in (*counts, *expected))
            ),
        )
    for kind, key, entries in (
        (Problem.IMAGE_ID_TWICE, 'id', images),
        (Problem.IMAGE_FILE_TWICE, 'file_name', images),
        (Problem.OBJECT_ID_TWICE, 'id', objects),
        (Problem.CATEGORY_TWICE, 'id', categories),
        (Problem.CATEGORY_TWICE, 'name', categories),
    ):
        for value, uses in Counter(entry[key] for entry in entries).items():
            if uses > 1:
                note(kind, f'{key} {shown(value)}')

    for what, entries in (('images', images), ('categories', categories)):
        if not are_of_one_kind(entry['id'] for entry in entries):
            note(Problem.ID_OF_NO_USE, f'{what} have ids of several kinds: {TWO_KINDS}')
    has_masks = any(entry.get('segmentation') for entry in objects)
    if not images:
        note(Problem.NO_IMAGES, f'{len(objects):,} objects, but no image')
    if not ann_file.name.startswith('image_info_'):  # of those others have the truth
        if not objects:
            note(Problem.NO_OBJECTS, f'{len(images):,} images, but no object')
        elif all(entry.get('iscrowd') for entry in objects):
            note(Problem.ONLY_CROWDS, f'all of {len(objects):,} objects are crowds')
        elif need_masks and not has_masks:
            note(Problem.NO_MASKS, f'none of {len(objects):,} objects has a segmentation')

    sizes = {image['id']: (image['height'], image['width']) for image in images}
    labels = {category['id'] for category in categories}
    for entry in tqdm(objects, desc=f'objects of {shown(ann_file.name)}'):
        where = f'annotation {shown(entry["id"])} of image {shown(entry["image_id"])}'
        number = to_number(entry['id'])
        if number is None:
            note(Problem.ID_OF_NO_USE, f'{where}: {NO_NUMBER}')
        elif number == 0:
            note(Problem.OBJECT_ID_ZERO, f'{where}: {NOT_MATCHED}')
        if entry['category_id'] not in labels:
            note(Problem.UNKNOWN_CATEGORY, f'{where}: category {shown(entry["category_id"])}')
        if entry['image_id'] not in sizes:
            note(Problem.UNKNOWN_IMAGE, where)
            continue
        for kind, text in _check_object(entry, *sizes[entry['image_id']], has_masks):
            note(kind, f'{where}: {text}')
    return images


def _read_annotations(ann_file: Path) -> tuple[list[dict], list[dict], list[dict]]:
    """Images, objects and categories, with the keys that are needed to go on."""
    content = read_json(ann_file, 'annotation file')
    require(content, _ANNOTATIONS, 'the file')
    return content['images'], content.get('annotations', []), content['categories']


def _check_object(
    entry: dict, height: int, width: int, has_masks: bool
) -> Iterator[tuple[Problem, str]]:
    mask, bounds = entry.get('segmentation'), None
    problem = find_mask_problem(mask, height, width) if has_masks else None
    if problem:
        yield problem
    elif has_masks:
        bounds = find_mask_bounds(mask, height, width)
    box, area = entry.get('bbox'), entry.get('area')
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        yield Problem.BOX_BROKEN, f'bbox {shown(box)}, but must be [x, y, width, height]'
    elif is_of_corners(box, area, bounds):
        yield (
            Problem.BOX_OF_CORNERS,
            f'bbox {shown(box)} is [left, top, right, bottom] by its mask or area, but must be '
            '[x, y, width, height]',
        )
    else:
        x, y, w, h = box
        if w < 1 or h < 1:
            yield Problem.BOX_TINY, f'bbox {shown(box)}'
        if min(x, y, width - x - w, height - y - h) < -ROUNDING:
            yield Problem.BOX_OUTSIDE, f'bbox {shown(box)}, but the image is {width} x {height}'
    if area is None:
        yield Problem.AREA_MISSING, f'area is {shown(area)}, but must be a number of pixels'
    elif not is_number(area) or area <= 0:
        yield Problem.AREA_EMPTY, f'area {shown(area)}'
    if entry.get('iscrowd') not in (0, 1):
        yield (
            Problem.ISCROWD_MISSING,
            f'iscrowd is {shown(entry.get("iscrowd"))}, but must be 0 or 1',
        )


def _check_images(images: list[dict], paths: list[Path], decode: bool, report: Report) -> int:
    """Returns how many there are."""

    expected = {
        path: (image['width'], image['height']) for path, image in zip(paths, images, strict=True)
    }

    def read(path: Path) -> tuple[int, int]:
        """Width and height as a training sees them."""
        with open_regular(path, 'image') as file, Image.open(file) as image:
            width, height = image.size
            if {width, height} != set(expected[path]):
                return width, height  # that is said, and enough
            if width * height > MAX_DECODED:
                raise UserValueError(f'it has {width} x {height} pixels: too many to decode')
            with _one_at_a_time if width * height > MAX_AT_ONCE else nullcontext():
                if decode:
                    image.load()
                turned = image.getexif().get(ORIENTATION, 1) in range(5, 9)  # decodes a PNG
            return (height, width) if turned else (width, height)

    found = 0
    for image, path, size in zip(images, paths, _read_all(read, paths), strict=True):
        found += not isinstance(size, FileNotFoundError)
        if isinstance(size, FileNotFoundError):
            report.add(Problem.IMAGE_MISSING, str(path))
        elif isinstance(size, Exception):
            report.add(Problem.IMAGE_UNREADABLE, f'{path}: {_explain(size)}')
        elif size != (image['width'], image['height']):
            report.add(Problem.IMAGE_SIZE, _describe_sizes(path, size, image))
    return found


def _check_maps(images: list[dict], paths: list[Path], needed: bool, report: Report) -> int:
    """Returns how many there are."""

    def read(path: Path) -> tuple[tuple[int, int], np.ndarray]:
        with open_regular(path, 'image') as file, Image.open(file) as image:
            if math.prod(image.size) > MAX_DECODED:
                raise UserValueError(f'it has {math.prod(image.size):,} pixels: too many to decode')
            return image.size, np.setdiff1d(np.asarray(image), STUFF_LABELS)

    found = 0
    for image, path, content in zip(images, paths, _read_all(read, paths), strict=True):
        found += not isinstance(content, FileNotFoundError)
        if isinstance(content, FileNotFoundError):
            if needed:
                report.add(Problem.MAP_MISSING, str(path))
        elif isinstance(content, Exception):
            report.add(Problem.MAP_UNREADABLE, f'{path}: {_explain(content)}')
        else:
            size, unknown = content
            if size != (image['width'], image['height']):
                report.add(Problem.MAP_SIZE, _describe_sizes(path, size, image))
            if unknown.size:
                report.add(Problem.MAP_LABELS, f'{path}: {unknown.tolist()}')
    return found


def _read_all(read: Callable[[Path], Any], paths: list[Path]) -> Iterator[Any]:
    """What is read from each file, in order; an error instead where there is one."""

    def try_to_read(path: Path) -> Any:
        try:
            return read(path)
        except UnicodeEncodeError:  # of the locale, which no file is to blame for
            raise
        except Exception as error:  # Pillow has many
            return error

    with ThreadPoolExecutor() as pool:
        name = shown(paths[0].parent.name) if paths else ''
        yield from tqdm(pool.map(try_to_read, paths), desc=f'files in {name}/', total=len(paths))


def _explain(error: Exception) -> str:
    return str(error) or type(error).__name__


def _describe_sizes(path: Path, size: tuple[int, int], image: dict) -> str:
    expected = f'{image["width"]} x {image["height"]}'
    return f'{path}: {size[0]} x {size[1]}, but its annotations are for {expected}'
