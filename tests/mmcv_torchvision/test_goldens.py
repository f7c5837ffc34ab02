"""Outputs and gradients of mmcv 2.1.0, compiled, on the CPU."""

import json

import numpy as np
import pytest
import torch
from mmcv import ops

from helpers.golden import assert_close_to_largest
from helpers.paths import GOLDEN_DIR

INDEX = GOLDEN_DIR / 'mmcv_ops.json'
CASES = json.loads(INDEX.read_text(encoding='utf-8')) if INDEX.is_file() else []


def suppress(function, config, boxes, scores):
    dets, keep = function(boxes, scores, **config)
    return dict(dets=dets, keep=keep)


def suppress_batch(config, boxes, labels, scores):
    dets, keep = ops.batched_nms(boxes, scores, labels, config['nms'])
    return dict(dets=dets, keep=keep)


def match(config, dets):
    groups = ops.nms_match(dets, **config)
    return dict(
        groups=torch.cat([group.reshape(-1) for group in groups]),
        sizes=torch.tensor([len(group) for group in groups]),
    )


def differentiate(function, config, grad_output, **inputs):
    """The output, and the gradients of all inputs but of RoIs."""
    leaves = {name: x.requires_grad_(name != 'rois') for name, x in inputs.items()}
    output = function(config, **leaves)
    output.backward(grad_output)
    grads = {f'grad_{name}': x.grad for name, x in leaves.items() if x.requires_grad}
    return dict(output=output.detach(), **grads)


def align(config, input, rois):
    order = ('output_size', 'spatial_scale', 'sampling_ratio', 'pool_mode', 'aligned')
    return ops.roi_align(input, rois, *(config[name] for name in order))


def convolve(config, input, offset, weight):
    order = ('stride', 'padding', 'dilation', 'groups', 'deform_groups')
    return ops.deform_conv2d(
        input, offset, weight, *(config[name] for name in order), False, config['im2col_step']
    )


def convolve_masked(config, input, offset, mask, weight, bias=None):
    order = ('stride', 'padding', 'dilation', 'groups', 'deform_groups')
    return ops.modulated_deform_conv2d(
        input, offset, mask, weight, bias, *(config[name] for name in order)
    )


RUN = {
    'nms': lambda config, **x: suppress(ops.nms, config, **x),
    'soft_nms': lambda config, **x: suppress(ops.soft_nms, config, **x),
    'batched_nms': suppress_batch,
    'nms_match': match,
    'roi_align': lambda config, **x: differentiate(align, config, **x),
    'deform_conv2d': lambda config, **x: differentiate(convolve, config, **x),
    'modulated_deform_conv2d': lambda config, **x: differentiate(convolve_masked, config, **x),
}


@pytest.mark.skipif(not CASES, reason=f'no {INDEX}: set LESA_GOLDEN_DIR')
@pytest.mark.parametrize('case', CASES, ids=lambda case: case['case'])
def test_golden(case):
    with np.load(GOLDEN_DIR / 'mmcv_ops.npz') as arrays:
        prefix = case['case']
        inputs = {x: torch.from_numpy(arrays[f'{prefix}/in/{x}']) for x in case['inputs']}
        expected = {x: torch.from_numpy(arrays[f'{prefix}/out/{x}']) for x in case['outputs']}
    actual = RUN[case['kind']](case['config'], **inputs)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if is_exact(case, name):
            assert torch.equal(actual[name], value), name
        else:
            assert_close_to_largest(actual[name], value, 1e-5, name)


def is_exact(case, name):
    """What is bit for bit mmcv's: choices, and means of samples.

    Not sums of products, exponentials, and where scattered gradients add up in another order; in
    float64, mmcv rounds RoIAlign's scale to float32.
    """
    if case['kind'] == 'soft_nms' and case['config']['method'] == 'gaussian':
        return name == 'keep'
    if case['kind'] == 'roi_align':
        return case['config']['pool_mode'] == 'avg' and case['case'] != 'roi_align_double'
    return 'nms' in case['kind']
