"""Exact attention over a 2D map. The code here imports only torch (and Triton on a GPU)."""

from .decomposed.attend import BACKENDS, attend, available_backends
from .decomposed.positions import fit_table, relative_logits
from .decomposed.reference import decomposed_weights
from .flattened import attend_flattened, flattened_weights, pairwise_embeddings
from .neighborhood.attend import (
    NEIGHBORHOOD_BACKENDS,
    attend_neighborhood,
    available_neighborhood_backends,
)
from .scales import flattened_scales, similarity_scales
from .support import check_backend

__all__ = [
    'BACKENDS',
    'NEIGHBORHOOD_BACKENDS',
    'attend',
    'attend_flattened',
    'attend_neighborhood',
    'available_backends',
    'available_neighborhood_backends',
    'check_backend',
    'decomposed_weights',
    'fit_table',
    'flattened_scales',
    'flattened_weights',
    'pairwise_embeddings',
    'relative_logits',
    'similarity_scales',
]
