"""What several families need: refusing inputs, and precisions that torchvision does not have."""

import torch


def same_dtype(**tensors: torch.Tensor) -> None:
    """Refuse tensors of different dtypes.

    Raises:
        TypeError: If they differ, with the dtype of each.
    """
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        found = ', '.join(f'{name} {tensor.dtype}' for name, tensor in tensors.items())
        raise TypeError(f'all have to be of the same dtype, but there are {found}')


def have_shape(name: str, tensor: torch.Tensor, *shape: int | None) -> None:
    """Refuse a tensor of another shape; None stands for any size.

    Raises:
        ValueError: If its shape differs, with what it is and has to be.
    """
    fits = tensor.dim() == len(shape) and all(
        size in (None, found) for size, found in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ', '.join('any' if size is None else str(size) for size in shape)
        raise ValueError(f'{name} has shape {tuple(tensor.shape)}, but needs ({wanted})')


def widened(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The tensors themselves, or in float32 if they are bfloat16, which torchvision lacks."""
    return [x.float() if x.dtype == torch.bfloat16 else x for x in tensors]


def give(target: torch.Tensor, result: torch.Tensor) -> None:
    """Let a tensor that mmcv has made be the result, copied only to change its dtype."""
    target.set_(result.to(target.dtype))
