"""What pycocotools makes of ids in COCO's format."""

from collections.abc import Iterable
from typing import Any

NOT_MATCHED = (
    'pycocotools takes id 0 for nothing found, and counts the object as missed even by a perfect '
    'detector: number annotations from 1'
)
NO_NUMBER = 'pycocotools compares ids of annotations as numbers'
TWO_KINDS = 'pycocotools sorts them: number all, or give all a text'


def to_number(annotation_id: Any) -> float | None:
    """What an annotation's id becomes in pycocotools' evaluation, where 0 stands for no object.

    Returns:
        float, optional: None if it cannot be a number.
    """
    if annotation_id is None:  # as NumPy has it
        return float('nan')
    try:
        return float(annotation_id)
    except (OverflowError, TypeError, ValueError):
        return None


def are_of_one_kind(ids: Iterable[Any]) -> bool:
    """Whether ids of images or categories can be sorted: all are numbers, or all are texts."""
    return len({None if value is None else isinstance(value, str) for value in ids}) < 2
