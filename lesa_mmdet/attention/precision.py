"""Half precision: softmax and statistics are computed in float32."""

import torch
from torch import Tensor


def at_least_float(*tensors: Tensor) -> list[Tensor]:
    """Float16 and bfloat16 tensors in float32, wider ones unchanged."""
    return [x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors]


def without_autocast(device: torch.device) -> torch.autocast:
    """A context in which operators on a device compute in the types that they are given."""
    # Autocast knows no 'meta'; tensors there have no values.
    return torch.autocast('cpu' if device.type == 'meta' else device.type, enabled=False)
