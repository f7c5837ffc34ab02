"""Checkpoints: read safely, under the names of this package, fitted to the model at hand."""

from .adapt import TakesCheckpoints, adapt_classifier, adapt_state_dict, convert_official

__all__ = ['TakesCheckpoints', 'adapt_classifier', 'adapt_state_dict', 'convert_official']
