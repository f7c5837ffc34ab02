import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from lesa_mmdet.datasets.masks import find_mask_problem, read_run_lengths
from lesa_mmdet.datasets.problems import Problem


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
        None if mask.any() else (Problem.MASK_EMPTY, 'run lengths that cover no pixel')
    )


SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


@pytest.mark.parametrize(
    'segmentation, kind',
    [
        ([SQUARE], None),
        ([SQUARE, [1, 1]], None),
        ([], Problem.MASK_MISSING),
        (None, Problem.MASK_MISSING),
        ([[1, 1, 2, 2]], Problem.MASK_MISSING),
        ([[1, 1, 1, 1, 1, 1]], Problem.MASK_EMPTY),
        ([[float('nan'), *SQUARE[1:]]], Problem.MASK_BROKEN),
        ([[1e9, *SQUARE[1:]]], Problem.MASK_BROKEN),
        ([['a'] * 6], Problem.MASK_BROKEN),
        ('polygon', Problem.MASK_BROKEN),
        ({'size': [10, 10], 'counts': [40, 20, 40]}, None),
        ({'size': [10, 10], 'counts': [100]}, Problem.MASK_EMPTY),
        ({'size': [10, 10], 'counts': [40, 20]}, Problem.MASK_BROKEN),
        ({'size': [10, 10], 'counts': [40, 20, 41]}, Problem.MASK_BROKEN),
        ({'size': [10, 10], 'counts': [40, -20, 80]}, Problem.MASK_BROKEN),
        ({'size': [10, 9], 'counts': [40, 20, 40]}, Problem.MASK_BROKEN),
        ({'size': [10, 10], 'counts': ''}, Problem.MASK_BROKEN),
        ({'size': [10, 10], 'counts': 'garbage'}, Problem.MASK_BROKEN),
        ({'size': [10, 10], 'counts': None}, Problem.MASK_BROKEN),
        ({}, Problem.MASK_BROKEN),
    ],
)
def test_mask_problems(segmentation, kind):
    problem = find_mask_problem(segmentation, 10, 10)
    assert problem is None if kind is None else problem[0] == kind
