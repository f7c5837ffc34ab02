"""A checkpoint whose parts are something else than what they are called is refused."""

from collections import OrderedDict

import pytest
import torch

from lesa_mmdet.checkpoints.files import read_checkpoint


def with_metadata(metadata):
    state = OrderedDict(weight=torch.zeros(1))
    state._metadata = metadata
    return state


@pytest.mark.parametrize(
    'content, sentence',
    [
        ({'meta': 7}, 'meta is 7, but has to be a dict or None'),
        ({'meta': ['a']}, r"meta is \['a'\], but"),
        ({'state_dict': [1]}, r'state_dict is \[1\], but has to be a dict'),
        ({'state_dict': 'weights'}, 'state_dict is weights, but'),
        ({'state_dict': None}, 'state_dict is None, but'),
        ({'state_dict': torch.zeros(2)}, 'state_dict is a value of type Tensor, but'),
        ({'state_dict': {1: torch.zeros(1)}}, 'state_dict has the key 1, but keys have to be text'),
        ({'state_dict': {'a\x1b[2J': torch.zeros(1)}}, r'has the key a\\x1b\[2J, but keys'),
        ({'net': {1.5: torch.zeros(1)}}, 'state_dict has the key 1.5, but keys have to be text'),
        ({'meta': {'dataset_meta': 7}}, 'meta: dataset_meta is 7, but has to be a dict or None'),
        ({'meta': {'CLASSES': 7}}, 'meta: CLASSES is 7, but has to be text or a list of texts'),
        ({'meta': {'dataset_meta': {'classes': [1]}}}, r'data: classes is \[1\], but'),
        ({'meta': {'dataset_meta': {'classes': {'a': 1}}}}, 'data: classes is {.*}, but'),
        ({'state_dict': with_metadata(7)}, 'versions of its layers is 7, but'),
        ({'state_dict': with_metadata({'a': 7})}, 'versions of its layers: a is 7, but'),
        ({'state_dict': with_metadata({'a': {'version': 'x'}})}, 'a.version is x, but has to be'),
    ],
)
def test_refused(content, sentence, tmp_path):
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(ValueError, match=f'file.pth.*{sentence}') as error:
        read_checkpoint(tmp_path / 'file.pth')
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    'content',
    [
        {},
        [1],
        None,
        {'meta': None, 'state_dict': {}},
        {'meta': {'CLASSES': ('a', 'b'), 'dataset_meta': {'classes': 'a'}}},
        {'meta': {'CLASSES': None, 'dataset_meta': None}},
        {'state_dict': torch.nn.BatchNorm1d(2).state_dict()},
        {7: 1},
    ],
    ids=range(8),
)
def test_read(content, tmp_path):
    torch.save(content, tmp_path / 'file.pth')
    assert type(read_checkpoint(tmp_path / 'file.pth')) is type(content)
