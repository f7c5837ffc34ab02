import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from lesa_mmdet.datasets.masks import find_mask_problem, read_run_lengths


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.randoms())
def test_run_lengths_are_those_of_pycocotools(height, width, repeats, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    mask = np.asfortranarray(mask.repeat(repeats, axis=0), dtype=np.uint8)
    rle = coco_mask.encode(mask)
    lengths = read_run_lengths(rle['counts'])
    assert lengths.sum() == mask.size and lengths[1::2].sum() == mask.sum()
    again = {'size': list(mask.shape), 'counts': lengths.tolist()}
    assert coco_mask.frPyObjects(again, *mask.shape) == rle
    assert find_mask_problem(again, *mask.shape) == (
        None if mask.any() else ('empty', 'run lengths that cover no pixel')
    )


SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


@pytest.mark.parametrize(
    'segmentation, kind',
    [
        ([SQUARE], None),
        ([SQUARE, [1, 1]], None),
        ([], 'missing'),
        (None, 'missing'),
        ([[1, 1, 2, 2]], 'missing'),
        ([[1, 1, 1, 1, 1, 1]], 'empty'),
        ([[float('nan'), *SQUARE[1:]]], 'broken'),
        ([[1e9, *SQUARE[1:]]], 'broken'),
        ([['a'] * 6], 'broken'),
        ('polygon', 'broken'),
        ({'size': [10, 10], 'counts': [40, 20, 40]}, None),
        ({'size': [10, 10], 'counts': [100]}, 'empty'),
        ({'size': [10, 10], 'counts': [40, 20]}, 'broken'),
        ({'size': [10, 10], 'counts': [40, 20, 41]}, 'broken'),
        ({'size': [10, 10], 'counts': [40, -20, 80]}, 'broken'),
        ({'size': [10, 9], 'counts': [40, 20, 40]}, 'broken'),
        ({'size': [10, 10], 'counts': ''}, 'broken'),
        ({'size': [10, 10], 'counts': 'garbage'}, 'broken'),
        ({'size': [10, 10], 'counts': None}, 'broken'),
        ({}, 'broken'),
    ],
)
def test_mask_problems(segmentation, kind):
    problem = find_mask_problem(segmentation, 10, 10)
    assert problem is None if kind is None else problem[0] == kind
