"""What files hold is compared with what it has to be, and the first difference is named."""

import numpy as np
import pytest

from lesa_mmdet.utils.schema import (
    ANY,
    COUNT,
    FINITE,
    TEXT,
    Each,
    optional,
    require,
    whole,
)

SCHEMA = {
    'epoch': COUNT,
    'seed?': optional(whole(0, 2**32 - 1)),
    'names?': [TEXT],
    'losses?': Each(FINITE),
    'any?': ANY,
}


@pytest.mark.parametrize(
    'value',
    [
        {'epoch': 0},
        {'epoch': np.int64(3), 'seed': None, 'names': (), 'losses': {}, 'other': object()},
        {'epoch': 2**53, 'seed': 2**32 - 1, 'names': ['a', 'ä'], 'losses': {'a': np.float32(1)}},
        {'epoch': 1, 'losses': {'a': 1, 'b': -1.5}, 'any': float('nan')},
    ],
)
def test_fits(value):
    require(value, SCHEMA, 'file')


@pytest.mark.parametrize(
    'value, sentence',
    [
        (None, 'file is None, but has to be a dict'),
        ([], 'file is [], but has to be a dict'),
        ('epoch', 'file is epoch, but has to be a dict'),
        ({}, 'file has no epoch'),
        ({'epoch': -1}, 'file: epoch is -1, but has to be a whole number from 0 to'),
        ({'epoch': True}, 'file: epoch is True, but'),
        ({'epoch': 1.0}, 'file: epoch is 1.0, but'),
        ({'epoch': float('nan')}, 'file: epoch is nan, but'),
        ({'epoch': '1'}, 'file: epoch is 1, but'),
        ({'epoch': 10**30}, 'file: epoch is 1000000000000000000000000000000, but'),
        ({'epoch': 10**400}, 'file: epoch is a number of 1,329 bits, but'),
        ({'epoch': 1, 'seed': 2**32}, 'file: seed is 4294967296, but'),
        ({'epoch': 1, 'names': 7}, 'file: names is 7, but has to be a list'),
        ({'epoch': 1, 'losses': 7}, 'file: losses is 7, but has to be a dict'),
        ({'epoch': 1, 'names': 'ab'}, 'file: names is ab, but has to be a list'),
        ({'epoch': 1, 'names': ['a', 1]}, 'file: names[1] is 1, but has to be text'),
        ({'epoch': 1, 'names': ['\ud800']}, 'file: names[0] is \\ud800, but has to be text'),
        ({'epoch': 1, 'losses': {'a': 'b'}}, 'file: losses.a is b, but has to be a finite number'),
        ({'epoch': 1, 'losses': {'a': 10**400}}, 'file: losses.a is a number of 1,329 bits'),
        ({'epoch': 1, 'losses': {'a\n': 1}}, 'file: losses has the key a\\n, but keys have to be'),
        ({'epoch': 1, 'losses': {1: 1}}, 'file: losses has the key 1, but keys have to be text'),
        ({'epoch': 1, 'losses': {'a': float('inf')}}, 'file: losses.a is inf, but'),
        ({'epoch': {'a' * 10**7: 1}}, "file: epoch is {'aaaa"),
    ],
    ids=range(23),
)
def test_what_differs_is_named(value, sentence):
    with pytest.raises(ValueError) as error:
        require(value, SCHEMA, 'file')
    assert str(error.value).startswith(sentence)
    assert str(error.value).isprintable() and len(str(error.value)) < 300
