from helpers.backbones import build_backbone, mmdet_scope  # noqa: F401
