"""What can be wrong with a box in COCO's format."""

from collections.abc import Iterable
from typing import Any

from ..utils.schema import NUMBER

ROUNDING = 2  # pixels by which boxes differ that tools make of the same mask


def is_of_corners(box: list[float], area: Any, bounds: tuple[float, ...] | None) -> bool:
    """Whether a box is (left, top, right, bottom) instead of (x, y, width, height).

    What else is known of the object has to fit the first reading, and not the second.

    Args:
        box (list[float]): Four numbers in pixels.
        area (Any): Area of the object in square pixels, if it is known.
        bounds (tuple[float, ...], optional): Its (left, top, right, bottom), if it has a mask.
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top or not (left or top):
        return False
    if bounds:
        x, y = bounds[:2]
        size = bounds[2] - x, bounds[3] - y
        return _are_close(box, bounds) and not _are_close(box, (x, y, *size))
    if not is_number(area) or area <= 0:
        return False
    of_corners, of_size = (right - left) * (bottom - top), right * bottom
    return abs(of_corners - area) <= 0.01 * area < abs(of_size - area)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and not too large for one of pixels."""
    return NUMBER.matches(value)


def _are_close(box: Iterable[float], other: Iterable[float]) -> bool:
    return all(abs(a - b) <= ROUNDING for a, b in zip(box, other, strict=True))
