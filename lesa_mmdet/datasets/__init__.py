"""Images and annotations in COCO's format: got, checked, drawn, cut out, and loaded."""

from .coco import CheckedCocoDataset

__all__ = ['CheckedCocoDataset']
