"""What can be wrong with a mask in COCO's formats."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..utils.errors import UserValueError
from ..utils.schema import whole
from ..utils.text import shown
from .problems import Problem

MAX_OUTLINE = 4_000_000  # pixels of an object's, for each of which pycocotools takes 40 bytes
_LENGTH = whole(-(2**40), 2**40)  # whose sums int64 holds


def find_mask_problem(segmentation: Any, height: int, width: int) -> tuple[Problem, str] | None:
    """Say why a COCO segmentation is no usable mask.

    pycocotools is asked last: it reads past the end of run lengths that are too short, and takes
    all memory for a coordinate that is huge or not a number.

    Args:
        segmentation (Any): Polygons ``[[x0, y0, x1, y1, ...], ...]``, or run lengths
            ``{'size': [H, W], 'counts': [...] or str}``.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.

    Returns:
        tuple[Problem, str], optional: The kind of problem and a description. None: the mask is
        valid and covers a pixel.
    """
    if isinstance(segmentation, dict):
        problem = find_rle_problem(segmentation, height, width)
        if problem:
            return Problem.MASK_BROKEN, problem
        covers = read_run_lengths(segmentation['counts'])[1::2].any()
        return None if covers else (Problem.MASK_EMPTY, 'run lengths that cover no pixel')
    if not segmentation:
        return Problem.MASK_MISSING, 'no polygon'
    if not isinstance(segmentation, list):
        return (
            Problem.MASK_BROKEN,
            f'neither polygons nor run lengths, but {type(segmentation).__name__}',
        )
    polygons = [polygon for polygon in segmentation if has_three_points(polygon)]
    if not polygons:
        return Problem.MASK_MISSING, 'no polygon of three points'
    try:
        arrays = [np.asarray(polygon) for polygon in polygons]
    except ValueError:  # lists of different lengths
        arrays = []
    # Text would become a number, and a number of 400 digits an object.
    if not arrays or any(array.ndim != 1 or array.dtype.kind not in 'iuf' for array in arrays):
        return Problem.MASK_BROKEN, 'a polygon of something else than numbers'
    points = np.concatenate(arrays)
    reach = 2 * max(height, width)
    if not (abs(points) <= reach).all():
        return Problem.MASK_BROKEN, f'a polygon with coordinates beyond {reach} pixels or undefined'
    outline = sum(abs(np.diff(array.reshape(-1, 2), axis=0)).max(1).sum() for array in arrays)
    if outline > MAX_OUTLINE:
        return Problem.MASK_BROKEN, f'a polygon with an outline of {outline:,.0f} pixels'
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return None if coco_mask.area(rle) else (Problem.MASK_EMPTY, 'polygons that cover no pixel')


def find_mask_bounds(segmentation: Any, height: int, width: int) -> tuple[float, ...]:
    """Smallest and largest x and y of a valid mask.

    Args:
        segmentation (Any): One in which :func:`find_mask_problem` finds nothing.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.

    Returns:
        tuple[float, ...]: (left, top, right, bottom) in pixels.
    """
    if isinstance(segmentation, dict):
        rle = coco_mask.frPyObjects(segmentation, height, width)
        x, y, w, h = coco_mask.toBbox(
            rle if isinstance(segmentation['counts'], list) else segmentation
        )
        return x, y, x + w, y + h
    points = np.concatenate([np.reshape(p, (-1, 2)) for p in segmentation if has_three_points(p)])
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def has_three_points(polygon: Any) -> bool:
    """Whether a polygon is a list of at least three pairs: mmdet drops others."""
    return isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0


def find_rle_problem(rle: Any, height: int, width: int) -> str | None:
    """Say why run lengths are not a mask of an image.

    Args:
        rle (Any): ``{'size': [H, W], 'counts': [...] or str}``.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.

    Returns:
        str, optional: The problem. None: they are.
    """
    if not isinstance(rle, dict) or rle.get('size') != [height, width]:
        size = rle.get('size') if isinstance(rle, dict) else None
        return f'run lengths for size {shown(size)}, but the image has {[height, width]}'
    try:
        lengths = read_run_lengths(rle.get('counts'))
    except ValueError as error:
        return str(error)
    if (lengths < 0).any() or lengths.sum() != height * width:
        return f'run lengths for {lengths.sum()} pixels, but the image has {height * width}'
    return None


def read_run_lengths(counts: Any) -> np.ndarray:
    """Read the run lengths of an RLE, outside and inside by turns, outside first.

    Args:
        counts (list[int] | str | bytes): Numbers, or pycocotools' text of them: five bits a
            character, a sixth says that more follow; from the fourth number on what is stored is
            the difference to the number two before.

    Returns:
        np.ndarray: int64, (number of runs,).

    Raises:
        ValueError: If it is neither, or the text is damaged.
    """
    if isinstance(counts, list):
        if not all(_LENGTH.matches(count) for count in counts):
            raise UserValueError('run lengths that are not whole numbers of pixels')
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, (str, bytes)):
        raise UserValueError(f'run lengths of type {type(counts).__name__}')
    if not counts:
        return np.zeros(0, dtype=np.int64)
    text = counts.encode('latin-1', 'replace') if isinstance(counts, str) else counts
    bits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if ((bits < 0) | (bits > 63)).any() or bits[-1] & 32:
        raise UserValueError('run lengths with damaged text')
    ends = np.flatnonzero(~bits & 32)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(bits.size) - np.repeat(starts, ends - starts + 1)
    if (place > 11).any():
        raise UserValueError('run lengths with damaged text')
    lengths = np.add.reduceat((bits & 31) << (5 * place), starts)
    negative = (bits[ends] & 16).astype(bool)
    lengths = lengths - (negative.astype(np.int64) << (5 * (ends - starts + 1)))
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths
