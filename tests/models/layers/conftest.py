"""Registries look into mmdet, whatever the tests of classifiers leave behind."""

from helpers.backbones import mmdet_scope  # noqa: F401
