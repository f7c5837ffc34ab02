"""Half precision: softmax and statistics are computed in float32."""

import torch
from torch import Tensor


def at_least_float(*tensors: Tensor) -> list[Tensor]:
    """Float16 and bfloat16 tensors in float32, wider ones as they are."""
    return [x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors]
