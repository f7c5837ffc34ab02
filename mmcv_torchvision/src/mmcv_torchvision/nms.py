"""Non-maximum suppression. Boxes are (left, top, right, bottom)."""

import torch
import torchvision

from .checks import have_shape, same_dtype


def nms(
    boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int
) -> torch.Tensor:
    """Indices of the boxes that no better one overlaps by more, the best first.

    Args:
        boxes (torch.Tensor): Shape (n, 4).
        scores (torch.Tensor): Shape (n,).
        iou_threshold (float): Intersection over union up to which both boxes are kept.
        offset (int): 1 if right and bottom pixels belong to boxes, else 0.

    Raises:
        TypeError: If boxes and scores are of different dtypes.
        ValueError: If their shapes do not fit.
    """
    boxes, scores = check(boxes, scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    dets: torch.Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> torch.Tensor:
    """Lower the scores of boxes that better ones overlap, and drop those that come out too low.

    Args:
        boxes (torch.Tensor): Shape (n, 4), on the CPU as all here.
        scores (torch.Tensor): Shape (n,).
        dets (torch.Tensor): Shape (n, 5): the first rows are filled with the boxes that are left,
            the best first, and their scores.
        iou_threshold (float): Intersection over union from which methods 0 and 1 lower scores.
        sigma (float): Width of method 2.
        min_score (float): Boxes whose scores fall below are dropped.
        method (int): 0 drops boxes, 1 lowers linearly, 2 with a Gaussian.
        offset (int): 1 if right and bottom pixels belong to boxes, else 0.

    Returns:
        torch.Tensor: Indices of the boxes in ``dets``, int64.
    """
    boxes, scores = check(boxes, scores)
    boxes, scores = boxes.clone(), scores.clone()
    areas = (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)
    indices = torch.arange(len(boxes))
    columns = (boxes, scores, areas, indices)
    kept = 0
    while kept < len(scores):
        first = slice(kept, kept + 1)
        best = kept + int(scores[kept:].argmax())
        for column in columns:
            column[[kept, best]] = column[[best, kept]]
        kept += 1
        rest = slice(kept, None)
        overlap = iou(boxes[first], areas[first], boxes[rest], areas[rest], offset)
        if method == 2:
            weight = (-(overlap * overlap) / sigma).exp()
        else:
            lowered = 1 - overlap if method == 1 else torch.zeros_like(overlap)
            weight = lowered.where(overlap >= iou_threshold, 1)
        scores[rest] *= weight
        # The last of those that stay move to where one is dropped: which of two equal scores
        # comes first depends on it.
        stays = torch.cat([torch.ones(kept, dtype=torch.bool), scores[rest] >= min_score])
        left = int(stays.sum())
        holes = (~stays[:left]).nonzero()[:, 0]
        movers = left + stays[left:].nonzero()[:, 0].flip(0)
        for column in columns:
            column[holes] = column[movers]
        columns = boxes, scores, areas, indices = [column[:left] for column in columns]
    dets[:kept, :4], dets[:kept, 4] = boxes, scores
    return indices


def nms_match(dets: torch.Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: one that is kept, and those that it suppresses, by falling scores.

    Args:
        dets (torch.Tensor): Boxes and their scores, shape (n, 5), on the CPU.
        iou_threshold (float): Intersection over union from which a box is suppressed.
    """
    have_shape('dets', dets, None, 5)
    boxes, scores = check(dets[:, :4], dets[:, 4])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = scores.argsort(descending=True, stable=True)
    groups = []
    while len(order):
        first, rest = order[:1], order[1:]
        matched = iou(boxes[first], areas[first], boxes[rest], areas[rest], 0) >= iou_threshold
        groups.append([*first.tolist(), *rest[matched].tolist()])
        order = rest[~matched]
    return groups


def check(boxes: torch.Tensor, scores: torch.Tensor) -> list[torch.Tensor]:
    """Boxes and scores, if they fit: in float32 if they are of a half precision.

    Halves would be too coarse for coordinates, and the CPU's suppression does not have them.
    """
    have_shape('boxes', boxes, None, 4)
    have_shape('scores', scores, len(boxes))
    same_dtype(boxes=boxes, scores=scores)
    if not boxes.is_floating_point():
        raise TypeError(f'boxes and scores have to be floating point numbers, not {boxes.dtype}')
    return [x.float() if x.element_size() < 4 else x for x in (boxes, scores)]


def iou(
    box: torch.Tensor, area: torch.Tensor, boxes: torch.Tensor, areas: torch.Tensor, offset: int
) -> torch.Tensor:
    """Intersection over union of a box, shape (1, 4), with others, (n, 4), in mmcv's rounding."""
    left_top = torch.maximum(box[:, :2], boxes[:, :2])
    right_bottom = torch.minimum(box[:, 2:], boxes[:, 2:])
    width, height = (right_bottom - left_top + offset).clamp(min=0).unbind(1)
    intersection = width * height
    return intersection / (area + areas - intersection)
