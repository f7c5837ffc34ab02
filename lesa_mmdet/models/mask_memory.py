"""Refuses images whose masks do not fit into memory, before they fill it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..utils.errors import UserMemoryError

# Bytes a pixel that one mask's grid of coordinates and its samples take while it is pasted.
PASTING = 24


def guard_masks(model: nn.Module) -> Any:
    """Let a detector refuse images whose masks do not fit into memory.

    mmdet pastes the masks of all detections of an image at its full size, not at the size that
    the detector sees.

    Args:
        model (nn.Module): Detector, or any other model: nothing happens to that.

    Returns:
        Any: Handle of a hook, with ``remove``.
    """
    return model.register_forward_pre_hook(_check, with_kwargs=True)


def _check(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    names = ('inputs', 'data_samples', 'mode')
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    head = getattr(model, 'roi_head', None)
    if given.get('mode') != 'predict' or not getattr(head, 'with_mask', False):
        return
    device = next(model.parameters()).device
    for sample in given.get('data_samples') or ():
        height, width = sample.ori_shape[:2]
        number = head.test_cfg.max_per_img
        needed, free = height * width * (number + PASTING), free_memory(device)
        if needed > free:
            raise UserMemoryError(
                f'{sample.get("img_path", "an image")} is {width} x {height}: the masks of '
                f'{number} detections take up to {needed / 2**30:.1f} GiB at that size, and '
                f'{free / 2**30:.1f} GiB of memory are free; lower '
                'model.test_cfg.rcnn.max_per_img, or make the image smaller'
            )


def free_memory(device: torch.device) -> float:
    """Bytes that are free on the machine and, if it is a GPU, on the device; inf if unknown."""
    meminfo = Path('/proc/meminfo')
    free = math.inf
    if meminfo.is_file():
        lines = dict(line.split(':') for line in meminfo.read_text(encoding='utf-8').splitlines())
        free = 1024 * int(lines['MemAvailable'].split()[0])
    if device.type == 'cuda':
        free = min(free, torch.cuda.mem_get_info(device)[0])
    return free
