"""What no golden covers, against definitions in loops and plain torch, and gradients."""

import math

import mmcv.ops as ops
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

SEEDS = st.integers(0, 2**31 - 1)
EXAMPLES = settings(max_examples=25)


def some_rois(count, images, size, dtype=torch.float32):
    """Boxes that also reach beyond the image, and some without a size."""
    corners = torch.rand(count, 4, dtype=dtype) * 1.6 * size - 0.3 * size
    lower, upper = (f(corners[:, :2], corners[:, 2:]) for f in (torch.minimum, torch.maximum))
    return torch.cat([torch.randint(images, (count, 1)).to(dtype), lower, upper], 1)


def round_half_away(number):
    return int(math.copysign(math.floor(abs(number) + 0.5), number))


def roi_pool(x, rois, size, scale):
    rows = []
    for image, *box in rois.tolist():
        left, top, right, bottom = (round_half_away(side * scale) for side in box)
        cells = []
        for row in range(size[0]):
            for column in range(size[1]):
                borders = []
                for start, end, cell, count, limit in (
                    (top, bottom, row, size[0], x.shape[2]),
                    (left, right, column, size[1], x.shape[3]),
                ):
                    step = max(end - start + 1, 1) / count
                    low, high = (
                        start + math.floor(cell * step),
                        start + math.ceil((cell + 1) * step),
                    )
                    borders.append(slice(min(max(low, 0), limit), min(max(high, 0), limit)))
                window = x[int(image)][:, borders[0], borders[1]]
                cells.append(window.amax((1, 2)) if window.numel() else x.new_zeros(x.shape[1]))
        rows.append(torch.stack(cells, -1).unflatten(-1, size))
    return torch.stack(rows)


@EXAMPLES
@given(SEEDS, st.sampled_from([(1, 1), (2, 3), (7, 7)]), st.sampled_from([1.0, 0.5]))
def test_roi_pool(seed, size, scale):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    rois = some_rois(5, 2, 8 / scale)
    check_gradients(
        ops.roi_pool(x, rois, size, scale), roi_pool(x, rois, size, scale), [x], exact=True
    )


def roi_align_max(x, rois, size, scale, ratio, aligned):
    rows = []
    for image, *box in rois.tolist():
        left, top, right, bottom = (side * scale - (0.5 if aligned else 0) for side in box)
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        grid = [
            ratio or math.ceil(extent / n) for extent, n in zip((height, width), size, strict=True)
        ]
        ys = [top + (i + 0.5) * height / (size[0] * grid[0]) for i in range(size[0] * grid[0])]
        xs = [left + (i + 0.5) * width / (size[1] * grid[1]) for i in range(size[1] * grid[1])]
        samples = torch.stack(
            [torch.stack([bilinear(x[int(image)], a, b) for b in xs], -1) for a in ys], -2
        )
        rows.append(F.max_pool2d(samples, grid))
    return torch.stack(rows)


def bilinear(x, row, column):
    """Clamped by up to one cell outside of the image, zero farther away."""
    height, width = x.shape[1:]
    if not (-1 <= row <= height and -1 <= column <= width):
        return x.new_zeros(len(x)) * x[:, 0, 0]
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = row - top, column - left
    upper = x[:, top, left] * (1 - across) + x[:, top, right] * across
    lower = x[:, bottom, left] * (1 - across) + x[:, bottom, right] * across
    return upper * (1 - down) + lower * down


@EXAMPLES
@given(SEEDS, st.sampled_from([(1, 2), (3, 2)]), st.sampled_from([0, 1, 2]), st.booleans())
def test_roi_align_max(seed, size, ratio, aligned):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = some_rois(4, 2, 7, torch.float64)
    ours = ops.roi_align(x, rois, size, 1.0, ratio, 'max', aligned)
    check_gradients(ours, roi_align_max(x, rois, size, 1.0, ratio, aligned), [x])


@EXAMPLES
@given(SEEDS, st.floats(0, 4), st.floats(0.05, 0.95), st.booleans())
def test_sigmoid_focal_loss(seed, gamma, alpha, with_weight):
    torch.manual_seed(seed)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randint(5, (6,))  # the fifth class is background
    weight = torch.rand(4, dtype=torch.float64) if with_weight else None
    p = logits.sigmoid()
    positive = F.one_hot(target, 5)[:, :4].bool()
    p_t = torch.where(positive, p, 1 - p)
    alpha_t = torch.where(positive, alpha, 1 - alpha)
    expected = -alpha_t * (1 - p_t) ** gamma * p_t.log()
    if with_weight:
        expected = expected * torch.cat([weight, weight.new_ones(1)])[target][:, None]
    ours = ops.sigmoid_focal_loss(logits, target, gamma, alpha, weight, 'none')
    check_gradients(ours, expected, [logits])


@EXAMPLES
@given(SEEDS, st.floats(1, 4), st.floats(0.05, 0.95), st.booleans())
def test_softmax_focal_loss(seed, gamma, alpha, with_weight):
    torch.manual_seed(seed)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randint(-1, 4, (6,))  # of -1, nothing counts
    weight = torch.rand(4, dtype=torch.float64) if with_weight else None
    p = logits.softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    expected = -alpha * (1 - p) ** gamma * p.log() * (target >= 0)
    if with_weight:
        expected = expected * weight[target]
    ours = ops.softmax_focal_loss(logits, target, gamma, alpha, weight, 'sum')
    check_gradients(ours, expected.sum(), [logits])


@pytest.mark.parametrize('logit', [-200.0, 0.0, 200.0])
@pytest.mark.parametrize('target', [0, 1, 2])
@pytest.mark.parametrize('loss', [ops.sigmoid_focal_loss, ops.softmax_focal_loss])
def test_focal_losses_of_saturated_logits_are_finite(loss, logit, target):
    if loss is ops.softmax_focal_loss:
        target = min(target, 1)
    logits = torch.tensor([[logit, -logit]], requires_grad=True)
    result = loss(logits, torch.tensor([target]), 0.5, 0.25, None, 'sum')
    result.backward()
    assert result.isfinite() and logits.grad.isfinite().all()


@EXAMPLES
@given(SEEDS, st.integers(1, 3), st.integers(1, 2))
def test_deformable_attention(seed, levels, points):
    torch.manual_seed(seed)
    shapes = torch.randint(1, 5, (levels, 2))
    sizes = shapes.prod(1)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])
    value = torch.randn(2, int(sizes.sum()), 3, 2, dtype=torch.float64, requires_grad=True)
    places = torch.rand(2, 4, 3, levels, points, 2, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(2, 4, 3, levels, points, dtype=torch.float64, requires_grad=True)
    places.requires_grad_()
    rows = []
    for image in range(2):
        for query in range(4):
            for head in range(3):
                total = 0
                for level, ((height, width), start) in enumerate(
                    zip(shapes.tolist(), starts, strict=True)
                ):
                    map_ = value[image, start : start + height * width, head].T
                    # A border of zeros: samples fade out towards it.
                    map_ = F.pad(map_.unflatten(1, (height, width)), (2, 2, 2, 2))
                    for point in range(points):
                        x, y = places[image, query, head, level, point] * torch.tensor(
                            [width, height]
                        )
                        weight = weights[image, query, head, level, point]
                        total = total + weight * interpolate(map_, y + 1.5, x + 1.5)
                rows.append(total)
    expected = torch.stack(rows).view(2, 4, 6)
    function = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    ours = function.apply(value, shapes, starts, places, weights, 64)
    check_gradients(ours, expected, [value, places, weights])


def interpolate(map_, row, column):
    """As ``bilinear``, inside of a map, and differentiable by the place."""
    top, left = int(row), int(column)
    down, across = row - top, column - left
    upper = map_[:, top, left] * (1 - across) + map_[:, top, left + 1] * across
    lower = map_[:, top + 1, left] * (1 - across) + map_[:, top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


@EXAMPLES
@given(SEEDS, st.sampled_from([1, 3, (1, 3)]), st.floats(0, 1))
def test_masked_convolution(seed, kernel, share):
    torch.manual_seed(seed)
    pad = tuple(side // 2 for side in torch.nn.modules.utils._pair(kernel))
    layer = ops.MaskedConv2d(3, 4, kernel, padding=pad)
    x, mask = torch.randn(1, 3, 6, 5), torch.rand(1, 6, 5) < share
    with torch.no_grad():
        expected = layer(x) * mask
        torch.testing.assert_close(layer(x, mask), expected, rtol=1e-5, atol=1e-6)


@EXAMPLES
@given(SEEDS, st.integers(0, 30), st.sampled_from([0, 1]), st.sampled_from([0, 1, 2]))
def test_soft_nms(seed, count, offset, method):
    """One box after the other, of the best score that is left."""
    torch.manual_seed(seed)
    boxes = some_rois(count, 1, 20)[:, 1:]
    scores = torch.rand(count)
    left, expected = dict(enumerate(scores.tolist())), []
    while left:
        best = max(left, key=left.get)
        expected.append((best, left.pop(best)))
        for other, score in left.items():
            share = iou_of(boxes[best], boxes[other], offset)
            factor = math.exp(-(share**2) / 0.5) if method == 2 else 1.0
            if method != 2 and share >= 0.3:
                factor = 1 - share if method == 1 else 0.0
            left[other] = score * factor
        left = {other: score for other, score in left.items() if score >= 0.05}
    name = ['naive', 'linear', 'gaussian'][method]
    dets, keep = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, name, offset)
    assert keep.tolist() == [index for index, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))
    assert torch.equal(dets[:, :4], boxes[keep])


def iou_of(a, b, offset):
    sides = torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2]) + offset
    common = sides.clamp(min=0).prod()
    whole = (a[2:] - a[:2] + offset).prod() + (b[2:] - b[:2] + offset).prod() - common
    return (common / whole).item()


def check_gradients(actual, expected, inputs, exact=False):
    """Outputs, and gradients of their products with random numbers."""
    tolerance = dict(rtol=0, atol=0) if exact else {}
    torch.testing.assert_close(actual, expected, **tolerance)
    weights = torch.randn_like(expected)
    grads = torch.autograd.grad(expected, inputs, weights)
    for ours, theirs in zip(torch.autograd.grad(actual, inputs, weights), grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


ROIS = [[0, 0.3, 0.2, 4.1, 5.3], [1, 1.7, 2.2, 9.4, 6.1]]


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_passes_gradcheck(mode, ratio):
    torch.manual_seed(0)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    assert gradcheck(lambda x: ops.roi_align(x, rois, (2, 3), 0.9, ratio, mode), double(2, 2, 6, 7))


def test_roi_pool_passes_gradcheck():
    torch.manual_seed(0)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    assert gradcheck(lambda x: ops.roi_pool(x, rois, (2, 3), 0.9), double(2, 2, 6, 7))


@pytest.mark.parametrize('groups, deform_groups', [(1, 1), (2, 2)])
def test_deformable_convolution_passes_gradcheck(groups, deform_groups):
    torch.manual_seed(0)
    x, weight = double(2, 4, 4, 3), double(2, 4 // groups, 3, 3)
    offset, mask = double(2, 18 * deform_groups, 4, 3), double(2, 9 * deform_groups, 4, 3)
    geometry = (1, 1, 1, groups, deform_groups)
    assert gradcheck(lambda *inputs: ops.deform_conv2d(*inputs, *geometry), (x, offset, weight))
    assert gradcheck(
        lambda *inputs: ops.modulated_deform_conv2d(*inputs, *geometry),
        (x, offset, mask, weight, double(2)),
    )


@pytest.mark.parametrize('loss', [ops.sigmoid_focal_loss, ops.softmax_focal_loss])
def test_focal_losses_pass_gradcheck(loss):
    torch.manual_seed(0)
    target = torch.tensor([0, 2, 1])
    assert gradcheck(lambda x: loss(x, target, 2.0, 0.25, None, 'mean'), double(3, 3))
