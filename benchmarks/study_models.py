"""What the study compares: models as changes of one config, and data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lesa_mmdet.datasets import keyed_shapes, shapes


class Model(NamedTuple):
    """A detector of the study.

    Attributes:
        label (str): Its name in tables.
        changes (dict): Changes of the ``model`` of study_config.py.
        against (str, optional): The model that it is compared with.
        has_terms (bool): Whether unary and binary weights can be told apart.
    """

    label: str
    changes: dict
    against: str | None = 'convolution'
    has_terms: bool = False


def _resnet(operator: str | None, deformable: bool = False, **options) -> dict:
    backbone = dict(operator=operator and dict(type=operator, **options))
    if deformable:
        # Not in stage 2, too, as in the paper: on a CPU, a step would take twice as long.
        backbone['dcn'] = dict(type='DCN', deform_groups=1, fallback_on_stride=False)
        backbone['stage_with_dcn'] = (False, False, True, True)
    return dict(backbone=backbone)


def _swin(kind: str = 'SwinTransformer', **options) -> dict:
    channels = 24
    backbone = dict(
        type=kind,
        embed_dims=channels,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        drop_path_rate=0.0,
        _delete_=True,
    )
    neck = dict(in_channels=[channels * 2**i for i in range(4)])
    return dict(backbone={**backbone, **options}, neck=neck)


MODELS = {
    'convolution': Model('convolution', _resnet(None), against=None),
    'deformable': Model('deformable convolution', _resnet(None, deformable=True)),
    'attention': Model('self-attention', _resnet('SelfAttention'), has_terms=True),
    'augmented': Model('attention augmentation', _resnet('AugmentedAttention')),
    'static-lesa': Model('static LESA', _resnet('LESA', fusion='static'), has_terms=True),
    'lesa': Model('LESA', _resnet('LESA'), has_terms=True),
    'deformable-lesa': Model('deformable LESA', _resnet('LESA', deformable=True), has_terms=True),
    'elsa': Model('ELSA', _resnet('ELSA')),
    'swin': Model('Swin', _swin(), against=None),
    'elsa-swin': Model('ELSA-Swin', _swin('ELSA_Swin', input_size=128), against='swin'),
}


class DataSet(NamedTuple):
    """A generated data set.

    Attributes:
        title (str): Its name in tables.
        generate (Callable): Writes it into a folder.
        classes (tuple[str, ...]): Names of its classes.
    """

    title: str
    generate: Callable[..., Path]
    classes: tuple[str, ...]


DATA_SETS = {
    'shapes': DataSet('shapes', shapes.generate, shapes.CLASSES),
    'keyed': DataSet('keyed shapes: context decides', keyed_shapes.generate, keyed_shapes.CLASSES),
}
