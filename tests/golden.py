"""The goldens: inputs, parameters and outputs of the authors' code, from LESA_GOLDEN_DIR."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
GOLDEN_DIR = Path(os.environ.get('LESA_GOLDEN_DIR', ROOT.parent / 'shared' / 'golden'))


class GoldenCase:
    """Inputs, parameters and outputs of the authors' code for one layer or network.

    Attributes:
        name (str): Name of the case.
        info (dict): What was built: kind, sizes, ``num_parameters``.
        arrays (Mapping): Outputs and gradients, by name.
    """

    def __init__(self, name):
        self.name = name
        self.info = json.loads((GOLDEN_DIR / f'{name}.json').read_text())
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
    """The cases of a kind ('layer', 'backbone', 'classifier') as pytest parameters."""
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
