"""The goldens: inputs, parameters and outputs of the authors' code, from LESA_GOLDEN_DIR."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from lesa_mmdet import LESA
from lesa_mmdet.checkpoints import convert_official
from lesa_mmdet.models.backbones.resnet import average_pool

from helpers.paths import GOLDEN_DIR


class GoldenCase:
    """Inputs, parameters and outputs of the authors' code for one layer or network.

    Attributes:
        name (str): Name of the case.
        info (dict): What was built: kind, sizes, ``num_parameters``.
        arrays (Mapping): Outputs and gradients, by name.
    """

    def __init__(self, name):
        self.name = name
        self.info = json.loads((GOLDEN_DIR / f'{name}.json').read_text(encoding='utf-8'))
        self.arrays = np.load(GOLDEN_DIR / f'{name}.npz')
        spec = importlib.util.spec_from_file_location('fill', GOLDEN_DIR / 'official_fill.py')
        self.fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.fill)

    def __repr__(self):
        return self.name

    def state_dict(self):
        """Parameters under the authors' names."""
        filled = self.fill.fill(self.info['shapes'])
        return {key: torch.from_numpy(value) for key, value in filled.items()}

    def image(self):
        return torch.from_numpy(self.fill.image(self.info['seed'], self.info['input_shape']))

    def grad_output(self, shape):
        return torch.from_numpy(self.fill.image(self.info['seed'] + 1, shape))

    def __getitem__(self, key):
        return torch.from_numpy(self.arrays[key])

    def group(self, prefix):
        """All arrays whose names start with a prefix, without it."""
        names = [name for name in self.arrays.files if name.startswith(prefix)]
        return {name[len(prefix) :]: self[name] for name in names}


def golden_cases(kind):
    """The cases whose names start with ``{kind}_`` as pytest parameters."""
    names = sorted(path.stem for path in GOLDEN_DIR.glob(f'{kind}_*.json'))
    if names:
        return [pytest.param(GoldenCase(name), id=name) for name in names]
    reason = f'no {kind} goldens in {GOLDEN_DIR}: set LESA_GOLDEN_DIR'
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


def assert_close_to_largest(actual, expected, tolerance, message=''):
    """Compare to a tolerance relative to the largest magnitude that is expected."""
    assert actual.shape == expected.shape, message
    error, largest = (actual - expected).abs().max().item(), expected.abs().max().item()
    assert error <= tolerance * largest, f'{message}: off by {error}, largest value {largest}'


def assert_layer_is_the_authors(case, mode, device='cpu', **kwargs):
    """Compare an operator's output, gradients and statistics with those of the authors' layer."""
    info = case.info
    operator = LESA(
        info['planes'],
        info['planes'],
        feat_size=(info['feat_size'],) * 2,
        num_heads=info['heads'],
        dcn=dict(type='DCN', deform_groups=1) if info['dcn'] else None,
        **kwargs,
    )
    operator.load_state_dict(convert_official(case.state_dict()))
    operator.train(mode == 'train').to(device)
    x = case.image().to(device).requires_grad_()
    out = average_pool(info['stride'])(operator(x))
    out.backward(case.grad_output(out.shape).to(device))

    assert_close_to_largest(out.cpu(), case[f'{mode}_output'], 1e-4, 'output')
    assert_close_to_largest(x.grad.cpu(), case[f'{mode}_grad_input'], 1e-4, 'input gradient')
    expected = convert_official(case.group(f'{mode}_grad/'))
    gradients = {name: p.grad.cpu() for name, p in operator.named_parameters()}
    assert gradients.keys() == expected.keys()
    bias = 'context.similarity_norm.bias'
    for name in gradients.keys() - {bias}:
        assert_close_to_largest(gradients[name], expected[name], 1e-4, name)
    # Zero but for rounding: to be compared with the gradient of the scale.
    scale = expected['context.similarity_norm.weight'].abs().max()
    assert (gradients[bias] - expected[bias]).abs().max() <= 1e-4 * scale
    norm = operator.context.similarity_norm
    for name, buffer in case.group(f'{mode}_buffer/bn_similarity.').items():
        assert_close_to_largest(getattr(norm, name).cpu(), buffer, 1e-4, name)
    assert (mode == 'eval') == (norm.num_batches_tracked.item() == 0)


def assert_sum_is_the_authors(case, compute):
    """Compare a weighted neighbourhood sum's output and gradients with the authors'.

    Args:
        case (GoldenCase): A case of their operation.
        compute (Callable): Takes the inputs, the dilation and the gradient of the output.
    """
    info = case.info
    images = {
        key: torch.from_numpy(case.fill.image(info['seeds'][key], shape))
        for key, shape in info['shapes'].items()
    }
    theirs = dict(v='v', weights='attention', mul='ghost_mul', add='ghost_add')
    inputs = {name: images[key] for name, key in theirs.items() if key in images}
    inputs['weights'] = inputs['weights'].unflatten(1, (-1, info['kernel_size'] ** 2))
    grad_out = torch.from_numpy(case.fill.image(info['seeds']['grad_output'], inputs['v'].shape))
    results = compute(inputs, info['dilation'], grad_out)
    assert_close_to_largest(results.pop('output'), case['output'], 1e-5, 'output')
    for name, grad in results.items():
        expected = case[f'grad_{theirs[name]}']
        assert_close_to_largest(grad.reshape(expected.shape), expected, 1e-5, name)
    assert len(results) == sum(name.startswith('grad_') for name in case.arrays.files)
