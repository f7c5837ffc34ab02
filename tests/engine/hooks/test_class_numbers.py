from types import SimpleNamespace

import pytest
from torch import nn

from lesa_mmdet import ClassNumbersHook
from lesa_mmdet.utils.errors import UserValueError


def head(number, **attributes):
    module = nn.Identity()
    for name, value in dict(attributes, num_classes=number).items():
        setattr(module, name, value)
    return module


def look(model, **metainfo):
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    runner = SimpleNamespace(
        model=nn.ModuleDict(model), train_dataloader=loader, val_dataloader=loader
    )
    ClassNumbersHook().before_train_epoch(runner)
    ClassNumbersHook().before_val_epoch(runner)


PANOPTIC = dict(classes=('cat', 'dog', 'sky'), thing_classes=('cat', 'dog'))


@pytest.mark.parametrize(
    'model, metainfo',
    [
        (dict(bbox_head=head(3)), dict(classes=('a', 'b', 'c'))),
        (dict(bbox_head=head(2), semantic_head=head(2), fusion_head=head(3)), PANOPTIC),
        (dict(rpn_head=head(1)), dict(classes=('a', 'b', 'c'))),
        (dict(mask_head=head(80, class_agnostic=True)), dict(classes=('a',))),
        (dict(bbox_head=head(256), language_model=nn.Identity()), dict(classes=('a',))),
        (dict(bbox_head=head(256)), {}),
    ],
)
def test_what_is_right_passes(model, metainfo):
    look(model, **metainfo)


@pytest.mark.parametrize(
    'model, metainfo, message',
    [
        (dict(bbox_head=head(80)), PANOPTIC, 'bbox_head has 80 classes, but the data set 3'),
        (dict(mask_head=head(1)), dict(classes=('a', 'b')), 'mask_head has 1 classes'),
        (dict(bbox_head=head(3)), dict(classes='cat'), "is the text 'cat'"),
    ],
)
def test_what_is_wrong_is_refused(model, metainfo, message):
    with pytest.raises(UserValueError, match=message):
        look(model, **metainfo)
