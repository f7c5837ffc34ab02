"""Detections or classes of images and videos: drawn, and as results in COCO's format."""

from .infer import Report, infer

__all__ = ['Report', 'infer']
