"""Arguments of backbones and operators."""

import torch

from lesa_mmdet import ELSA, LESA, LESA_WRN, AugmentedAttention, LESA_ResNet, SelfAttention

from helpers.bad_input import Case

DCN = dict(type='DCN', deform_groups=1, fallback_on_stride=False)
LAST = (False, False, False, True)


def backbone(sentence, kind=LESA_ResNet, **arguments):
    """A case of one wrong argument."""
    name = ', '.join(f'{key}={value!r}' for key, value in arguments.items())
    arguments = {'depth': 50, 'base_channels': 16, 'input_size': 64, **arguments}
    return Case(f'{kind.__name__}({name})', sentence, lambda place: kind(**arguments))


def operator(sentence, kind=LESA, **arguments):
    """A case of one wrong argument of an operator."""
    name = ', '.join(f'{key}={value!r}' for key, value in arguments.items())
    arguments = {'in_channels': 32, 'out_channels': 32, 'feat_size': (4, 4), **arguments}
    return Case(f'{kind.__name__}({name})', sentence, lambda place: kind(**arguments))


SIZE = r'ValueError: input_size is {}, but has to be \(height, width\) in pixels, two whole numbers'
FLAGS = r'ValueError: stages_with_operator is {}, but needs one True or False for each of {} stages'
HEADS = r'ValueError: num_heads is {}, but has to be a whole number from 1 on'

CASES = [
    *(
        backbone(SIZE.format(seen), input_size=size)
        for size, seen in (
            (0, '0'),
            (-64, '-64'),
            (64.0, r'64\.0'),
            ('64', "'64'"),
            (True, 'True'),
            (None, 'None'),
            ((64,), r'\(64,\)'),
            ((64, 64, 3), r'\(64, 64, 3\)'),
            ((64, 0), r'\(64, 0\)'),
            ((64, -64), r'\(64, -64\)'),
            ((64.5, 64), r'\(64\.5, 64\)'),
            (('64', '64'), r"\('64', '64'\)"),
        )
    ),
    backbone(SIZE.format('0'), kind=LESA_WRN, input_size=0),
    *(
        backbone(r'ValueError: operator is .*, but has to be a dict with its type', operator=value)
        for value in ('LESA', {}, dict(num_heads=8), True, ['LESA'])
    ),
    backbone(
        r"ValueError: operator type 'LSEA' is unknown; available: AugmentedAttention, .*LESA",
        operator=dict(type='LSEA'),
    ),
    backbone(
        r"ValueError: operator type 'ResNet' is unknown; available: ", operator=dict(type='ResNet')
    ),
    backbone(
        r"ValueError: position 'decomposd' is unknown; available: 'decomposed', 'flattened'",
        operator=dict(type='LESA', position='decomposd'),
    ),
    backbone(
        r"ValueError: fusion 'statc' is unknown; available: 'dynamic', 'static'",
        operator=dict(type='LESA', fusion='statc'),
    ),
    *(
        backbone(HEADS.format(seen), operator=dict(type='LESA', num_heads=heads))
        for heads, seen in ((0, '0'), (-8, '-8'), (8.0, r'8\.0'), ('8', "'8'"), (None, 'None'))
    ),
    operator(HEADS.format('0'), num_heads=0),
    operator(HEADS.format('0'), kind=SelfAttention, num_heads=0),
    operator(HEADS.format('-1'), kind=AugmentedAttention, num_heads=-1),
    operator(
        r'ValueError: in_channels and out_channels have to be multiples of num_heads = 5, got 32',
        num_heads=5,
    ),
    operator(r'ValueError: out_channels has to be a multiple of 2 \* num_heads = 64', num_heads=32),
    operator(
        r'ValueError: key_ratio and value_ratio have to be positive, got 0 and 0\.1',
        kind=AugmentedAttention,
        key_ratio=0,
    ),
    operator(
        r'ValueError: value_ratio 1\.5 leaves the convolution none',
        kind=AugmentedAttention,
        value_ratio=1.5,
    ),
    operator(
        r"ValueError: the similarity terms need a batch norm \(norm_cfg type 'BN' or 'SyncBN'\)",
        norm_cfg=dict(type='GN', num_groups=4),
    ),
    *(
        backbone(FLAGS.format('.*', 4), stages_with_operator=flags)
        for flags in (
            (0, 1, 2, 3),
            (2, 3),
            (0, 0, 1, 1),
            (False, True),
            (False, False, True, True, True),
            'all',
            True,
            None,
        )
    ),
    backbone(
        FLAGS.format('.*', 3),
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        stages_with_operator=LAST,
    ),
    backbone(
        r'ValueError: first_block_conv is \(0, 1\), but needs one True or False for each of 4',
        first_block_conv=(0, 1),
    ),
    backbone(
        r'ValueError: stage_with_dcn is \(False, False, False, True\), but there is no dcn',
        stage_with_dcn=LAST,
    ),
    *(
        backbone(
            r"ValueError: dcn is .*, but has to be a dict of type 'DCN' or 'DCNv2'",
            dcn=dcn,
            stage_with_dcn=LAST,
        )
        for dcn in (dict(type='DCNv9'), dict(type='dcn'), dict(deform_groups=1), 'DCN', True)
    ),
    backbone(
        r'ValueError: stage_with_dcn is \(3,\), but needs one True or False for each of 4 stages',
        dcn=DCN,
        stage_with_dcn=(3,),
    ),
    *(
        backbone(
            r'ValueError: depth is .*, but has to be one of 18, 34, 50, 101 or 152', depth=depth
        )
        for depth in (51, '50', 50.5, None)
    ),
    backbone(
        r'ValueError: depth is 18, but has to be one of 50, 101 or 152', kind=LESA_WRN, depth=18
    ),
    backbone(
        r'ValueError: stage 3 of depth 18 has BasicBlocks, but an operator',
        depth=18,
    ),
    *(
        backbone(r'ValueError: num_stages is .*, but has to be 1 to 4', num_stages=number)
        for number in (0, 5, 4.0)
    ),
    *(
        backbone(r'ValueError: strides is .*, but needs a whole number from 1 on', strides=strides)
        for strides in ((1, 2, 2), (1, 2, 2, 0), 2)
    ),
    backbone(r'ValueError: dilations is .*, but needs a whole number from 1 on', dilations=(1,)),
    *(
        backbone(
            r'ValueError: out_indices is .*, but has to name stages by 0, 1, 2 or 3, as \(3,\)',
            out_indices=indices,
        )
        for indices in ((4,), (), 3, (-1,))
    ),
    *(
        backbone(r'ValueError: frozen_stages is .*, but has to be -1', frozen_stages=stages)
        for stages in (5, -2, 1.5)
    ),
    backbone(r'ValueError: base_channels is 0, but has to be a whole number', base_channels=0),
    backbone(r"TypeError: 'inputsize' is no argument of the backbone; is input_size", inputsize=64),
    backbone(r"TypeError: 'pretrain' is no argument of the backbone; is pretrained", pretrain=1),
    Case(
        'flattened positions on a map of another size',
        r"ValueError: position 'flattened' was built for a map of \(4, 4\), got \(5, 4\)",
        lambda place: LESA(32, 32, feat_size=(4, 4), position='flattened')(torch.rand(1, 32, 5, 4)),
    ),
    Case(
        'an attention backend that does not exist',
        r"ValueError: attention backend 'tritn' is unknown; available: auto, ",
        lambda place: LESA(32, 32, feat_size=(4, 4), backend='tritn'),
    ),
    Case(
        'a backend that neighbourhoods do not have',
        r"ValueError: attention backend 'chunked' is unknown; available: auto, reference, shifted",
        lambda place: ELSA(32, 32, backend='chunked'),
    ),
]
