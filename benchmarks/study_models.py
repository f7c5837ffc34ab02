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
        epochs (int, optional): How long it trains, if not as long as study_config.py says.
        start (str, optional): The model from whose last checkpoint it starts.
        fresh_operators (bool): Whether its operators start fresh even so.
        context_rate (float): Factor on the learning rate of context and fusion.
        data_sets (tuple[str, ...], optional): Names of the data sets that it is trained on, if not
            on all.
    """

    label: str
    changes: dict
    against: str | None = 'convolution'
    has_terms: bool = False
    epochs: int | None = None
    start: str | None = None
    fresh_operators: bool = False
    context_rate: float = 1
    data_sets: tuple[str, ...] | None = None


def _resnet(operator: str | None, deformable: bool = False, **options) -> dict:
    backbone = dict(operator=operator and dict(type=operator, **options))
    if deformable:
        # Not also in stage 2, as in the paper: on a CPU, a step would take twice as long.
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


def _made_of_convolutions(zero_init_context: bool = True, **options) -> dict:
    changes = _resnet('LESA', **options)
    changes['backbone'].update(pretrained_conv=True, zero_init_context=zero_init_context)
    return changes


def _going_on(label: str, changes: dict, against: str | None = 'convolution-on', **more) -> Model:
    has_terms = changes['backbone']['operator'] is not None
    more = dict(epochs=5, start='convolution') | more
    return Model(label, changes, against, has_terms, **more)


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
    'convolution-on': _going_on('the same convolution, 5 more', _resnet(None), against=None),
    'lesa-silent': _going_on('LESA made of it, silent, 5 more', _made_of_convolutions()),
    'lesa-speaking': _going_on(
        'LESA made of it, speaking, 5 more', _made_of_convolutions(zero_init_context=False)
    ),
    'static-lesa-silent': _going_on(
        'static LESA made of it, silent, 5 more', _made_of_convolutions(fusion='static')
    ),
    'lesa-fresh': _going_on(
        'LESA of fresh operators, all else taken over, 5 more',
        _resnet('LESA'),
        fresh_operators=True,
    ),
    'lesa-silent-15': _going_on(
        'LESA made of it, silent, 15 more',
        _made_of_convolutions(),
        epochs=15,
        data_sets=('keyed',),
    ),
    'lesa-silent-fast-15': _going_on(
        'LESA made of it, silent, 15 more, context at 5 times the rate',
        _made_of_convolutions(),
        epochs=15,
        context_rate=5,
        data_sets=('keyed',),
    ),
    'lesa-fresh-15': _going_on(
        'LESA of fresh operators, all else taken over, 15 more',
        _resnet('LESA'),
        fresh_operators=True,
        epochs=15,
        data_sets=('keyed',),
    ),
    'lesa-15': Model(
        'LESA from scratch, 15 epochs',
        _resnet('LESA'),
        against='convolution-on',
        has_terms=True,
        epochs=15,
    ),
}

# Names of the models of each study. Each has a file of results.
FROM_RESNET = ['convolution', *list(MODELS)[list(MODELS).index('convolution-on') :]]
STUDIES = {
    'operators': [name for name in MODELS if name not in FROM_RESNET[1:]],
    'from-resnet': FROM_RESNET,
}


class DataSet(NamedTuple):
    """A generated data set.

    Attributes:
        title (str): Its name in tables.
        generate (Callable): Writes it into a folder.
        classes (tuple[str, ...]): Names of its classes.
        found_out (float, optional): Box AP above which a run has found out what decides a class.
    """

    title: str
    generate: Callable[..., Path]
    classes: tuple[str, ...]
    found_out: float | None = None


DATA_SETS = {
    'shapes': DataSet('shapes', shapes.generate, shapes.CLASSES),
    'keyed': DataSet(
        'keyed shapes: context decides', keyed_shapes.generate, keyed_shapes.CLASSES, found_out=0.35
    ),
}
