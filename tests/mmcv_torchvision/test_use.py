"""How the operators behave in mmcv: precisions, memory, refusals, and what is missing."""

import mmcv.ops as ops
import numpy as np
import pytest
import torch

BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
SCORES = torch.tensor([0.5, 0.75, 0.25])
ROIS = torch.tensor([[0, 0.0, 0, 6, 5], [1, 2, 1, 7, 8]])


def deformable(dtype, x=(2, 4, 6, 5), weight=(3, 4, 3, 3), offset=(2, 18, 6, 5), mask=None):
    torch.manual_seed(0)
    shapes = [shape for shape in (x, offset, mask, weight) if shape]
    # Numbers that halves have, too, and places that do not lie on borders of cells.
    tensors = [torch.randint(-8, 9, shape) / 8 for shape in shapes]
    tensors[1] += 1 / 16
    tensors = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    function = ops.modulated_deform_conv2d if mask else ops.deform_conv2d
    return function(*tensors, *([None] if mask else []), 1, 1), tensors


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    'compute',
    [
        lambda dtype: deformable(dtype),
        lambda dtype: deformable(dtype, mask=(2, 9, 6, 5)),
        lambda dtype: pooled(ops.roi_align, dtype, (3, 3), 1.0, 2, 'avg'),
        lambda dtype: pooled(ops.roi_align, dtype, (3, 3), 1.0, 2, 'max'),
        lambda dtype: pooled(ops.roi_pool, dtype, (3, 3), 1.0),
    ],
    ids=['deformable', 'modulated', 'roi_align', 'roi_align_max', 'roi_pool'],
)
def test_half_precisions(compute, dtype):
    half, inputs = compute(dtype)
    whole, exact = compute(torch.float32)
    assert half.dtype == dtype
    half.sum().backward()
    whole.sum().backward()
    pairs = [(half, whole), *((a.grad, b.grad) for a, b in zip(inputs, exact, strict=True))]
    for actual, expected in pairs:
        assert actual.dtype == dtype
        error = (actual.float() - expected).abs().max()
        assert error <= 16 * torch.finfo(dtype).eps * expected.abs().max()


def pooled(function, dtype, *args):
    torch.manual_seed(0)
    x = (torch.randint(-8, 9, (2, 3, 8, 9)) / 8).to(dtype).requires_grad_()
    return function(x, ROIS.to(dtype), *args), [x]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_suppression_takes_all_precisions(dtype):
    boxes, scores = BOXES.to(dtype), SCORES.to(dtype)
    assert ops.nms(boxes, scores, 0.5)[1].tolist() == [1, 2]
    dets, keep = ops.soft_nms(boxes, scores, 0.5, min_score=0.01)
    assert dets.dtype == dtype and keep.tolist() == [1, 2, 0]
    groups = ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5)
    assert [group.tolist() for group in groups] == [[1, 0], [2]]


def test_numpy_and_nothing_to_suppress():
    dets, keep = ops.nms(BOXES.numpy(), SCORES.numpy(), 0.5)
    assert isinstance(dets, np.ndarray) and keep.tolist() == [1, 2]
    for function in (ops.nms, ops.soft_nms):
        dets, keep = function(torch.zeros(0, 4), torch.zeros(0), 0.5)
        assert dets.shape == (0, 5) and keep.shape == (0,)


def test_one_backward_pass_serves_input_and_weight(operators, monkeypatch):
    """Also when only one of them is asked for, first or after the other."""
    passes = []
    gradients = operators.deformable.gradients

    def count(*args):
        passes.append(args)
        return gradients(*args)

    monkeypatch.setattr(operators.deformable, 'gradients', count)
    out, (x, offset, weight) = deformable(torch.float32)
    expected = torch.autograd.grad(out.sum(), [x, offset, weight], retain_graph=True)
    assert len(passes) == 1
    # Another gradient of the output in between must not be mistaken for this one.
    torch.autograd.grad((3 * out).sum(), [x], retain_graph=True)
    [alone] = torch.autograd.grad(out.sum(), [weight], retain_graph=True)
    torch.testing.assert_close(alone, expected[2])
    frozen, (x, offset, weight) = deformable(torch.float32)
    torch.testing.assert_close(torch.autograd.grad(frozen.sum(), [x])[0], expected[0])


@pytest.mark.parametrize('scale', [1, 0.5])
def test_parameters_alone(operators, scale):
    """Without a pass for the input before, and with a factor."""
    out, (x, offset, weight) = deformable(torch.float32)
    [expected] = torch.autograd.grad(out.sum(), [weight])
    filled = torch.zeros_like(weight)
    operators.deform_conv_backward_parameters(
        *(
            x.detach(),
            offset.detach(),
            torch.ones_like(out),
            filled,
            x.new_empty(0),
            x.new_empty(0),
        ),
        **dict(kW=3, kH=3, dW=1, dH=1, padW=1, padH=1, dilationW=1, dilationH=1),
        **dict(group=1, deformable_group=1, scale=scale, im2col_step=2),
    )
    torch.testing.assert_close(filled, scale * expected)


def test_outputs_are_not_copied(operators, monkeypatch):
    made = {}
    roi_align = torch.ops.torchvision.roi_align

    class Operators:
        def roi_align(*args):
            made['memory'] = roi_align(*args)
            return made['memory']

    monkeypatch.setattr(operators.roi, 'operators', Operators)
    out = ops.roi_align(torch.randn(2, 3, 8, 9), ROIS, (2, 2))
    assert out.data_ptr() == made['memory'].data_ptr()


X = torch.randn(2, 3, 8, 9)
NAN, INF = float('nan'), float('inf')
LOST = [(NAN,) * 4, (NAN, 1, 5, 5), (1, 1, NAN, 5), (-INF, 0, INF, 5), (0, 0, INF, INF)]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
def test_rois_that_are_not_finite_find_nothing(mode, sampling_ratio, aligned, dtype):
    """Those of a training that diverges: torchvision's kernels would end the process."""
    rois = torch.tensor([(0, *box) for box in LOST] + [(1, 1, 1, 5, 5)]).to(dtype)
    x = torch.ones(2, 3, 8, 9, dtype=dtype, requires_grad=True)
    out = ops.roi_align(x, rois, (3, 3), 1.0, sampling_ratio, mode, aligned)
    assert (out[:-1] == 0).all() and out[-1].sum().item() == pytest.approx(27)
    out.sum().backward()
    assert (x.grad[0] == 0).all() and x.grad[1].sum().item() == pytest.approx(27, rel=0.02)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('mask', [None, (2, 9, 6, 5)])
@pytest.mark.parametrize('value', [NAN, INF, -INF])
def test_offsets_that_are_no_numbers_find_nothing(value, mask, dtype):
    torch.manual_seed(0)
    x, weight = (torch.ones(size, dtype=dtype) for size in ((2, 4, 6, 5), (3, 4, 3, 3)))
    offset = torch.zeros(2, 18, 6, 5, dtype=dtype)
    offset[0, 0, 2, 2] = offset[0, 3, 2, 3] = value  # a row and a column of one tap each
    inputs = [x, offset, *([torch.ones(mask, dtype=dtype)] if mask else []), weight]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    function = ops.modulated_deform_conv2d if mask else ops.deform_conv2d
    out = function(*inputs, *([None] if mask else []), 1, 1)
    assert (out[0, :, 2, 2:4] == 32).all() and (out[1, :, 2, 2] == 36).all()
    grads = torch.autograd.grad(out.sum(), inputs)
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(
    'call, error, words',
    [
        (
            lambda: ops.roi_align(X, ROIS.double(), 2),
            TypeError,
            'input torch.float32, rois',
        ),
        (lambda: ops.roi_align(X.bfloat16(), ROIS, 2), TypeError, 'input torch.bfloat16'),
        (lambda: ops.roi_align(X[0], ROIS, 2), ValueError, r'input has shape \(3, 8, 9\)'),
        (lambda: ops.roi_align(X[:1], ROIS, 2), ValueError, 'images 0 to 1, but the input has 1'),
        (lambda: ops.roi_align(X, -ROIS, 2), ValueError, 'images -1 to 0, but the input has 2'),
        (lambda: ops.roi_align(X, ROIS / 0, 2), ValueError, 'images nan to nan, but'),
        (lambda: ops.roi_align(X, ROIS * NAN, 2), ValueError, 'images nan to nan, but'),
        (
            lambda: ops.roi_align(X[..., :0], ROIS, 2),
            ValueError,
            r'\(2, 3, 8, 0\): .* nothing to po',
        ),
        (lambda: ops.roi_pool(X[:, :, :0], ROIS, 2), ValueError, 'there is nothing to pool'),
        (lambda: ops.roi_pool(X, ROIS.double(), 2), TypeError, 'rois torch.float64'),
        (lambda: ops.nms(BOXES, SCORES.double(), 0.5), TypeError, 'scores torch.float64'),
        (lambda: ops.nms(BOXES, SCORES[:, None], 0.5), ValueError, r'scores has shape \(3, 1\)'),
        (lambda: ops.nms(BOXES.long(), SCORES.long(), 0.5), TypeError, 'not torch.int64'),
        (lambda: ops.soft_nms(BOXES, SCORES.double()), TypeError, 'scores torch.float64'),
        (lambda: ops.nms_match(BOXES.long().new_ones(3, 5), 0.5), TypeError, 'not torch.int64'),
        (
            lambda: deformable(torch.float32, offset=(2, 16, 6, 5)),
            ValueError,
            r'offset has shape \(2, 16, 6, 5\), but needs \(2, 18, 6, 5\)',
        ),
        (lambda: deformable(torch.float32, offset=(2, 18, 6, 4)), ValueError, 'offset has shape'),
        (lambda: deformable(torch.float32, offset=(1, 18, 6, 5)), ValueError, 'offset has shape'),
        (lambda: deformable(torch.float32, weight=(3, 2, 3, 3)), ValueError, 'weight has shape'),
        (lambda: deformable(torch.float32, mask=(2, 1, 6, 5)), ValueError, 'mask has shape'),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words) as raised:
        call()
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize('name', ['carafe_forward', 'nms_rotated', 'box_iou_rotated', 'new_one'])
def test_missing_operators(operators, name):
    with pytest.raises(NotImplementedError, match=f'{name} is not among .* compiled') as raised:
        getattr(operators, name)(1, two=2)
    assert len(str(raised.value).splitlines()) == 1
    assert not hasattr(operators, '__path_of_nothing__')


def test_missing_operator_in_mmcv():
    with pytest.raises(NotImplementedError, match='carafe_forward'):
        ops.carafe(torch.randn(1, 4, 2, 2), torch.randn(1, 9, 4, 4), 3, 1, 2)


def test_mmcv_reports_whose_operators_they_are(operators):
    assert operators.get_compiler_version().startswith('none, operators of torchvision 0.')
    assert operators.get_compiling_cuda_version() in (torch.version.cuda, 'not available')


@pytest.mark.parametrize(
    ('number', 'says'), [(-1, 'not available'), (12060, '12.6'), (13000, '13.0')]
)
def test_versions_of_cuda(operators, monkeypatch, number, says):
    monkeypatch.setattr(torch.ops.torchvision, '_cuda_version', lambda: number)
    assert operators.get_compiling_cuda_version() == says
