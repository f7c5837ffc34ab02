"""A trained model, loaded and used: detections or classes of images and videos."""

from .infer import Report, infer

__all__ = ['Report', 'infer']
