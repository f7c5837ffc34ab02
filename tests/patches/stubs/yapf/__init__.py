"""In yapf's place: configs as mmengine writes them, which takes yapf a second each to lay out."""

__version__ = '0.43.0'
