"""Images and annotations in COCO's format: got, checked, drawn, cut out, and read by data loaders."""

from .coco import CheckedCocoDataset

__all__ = ['CheckedCocoDataset']
