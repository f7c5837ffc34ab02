import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models import ResNet
from mmdet.registry import MODELS
from mmengine.model.efficient_conv_bn_eval import turn_on_efficient_conv_bn_eval
from torch import nn

from lesa_mmdet import LESA, LESA_WRN, LESA_ResNet, SelfAttention
from lesa_mmdet.attention import BACKENDS
from lesa_mmdet.models.backbones import arguments
from lesa_mmdet.models.backbones.resnet import average_pool

from helpers.golden import assert_close_to_largest, golden_cases

DCN = dict(type='DCN', deform_groups=1, fallback_on_stride=False)
DEFORMABLE = dict(dcn=DCN, stage_with_dcn=(False, True, True, True))


def tiny(kind=LESA_ResNet, **kwargs):
    """A backbone of 1/8 of the width, for images of 64 pixels."""
    kwargs = {**dict(depth=50, base_channels=8, input_size=(64, 64)), **kwargs}
    kwargs.setdefault('operator', dict(type='LESA', num_heads=4))
    return kind(**kwargs)


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


class TestGolden:
    @pytest.mark.parametrize('backend', ['auto', *BACKENDS])
    @pytest.mark.parametrize('case', golden_cases('backbone'))
    def test_detection_backbone(self, case, backend):
        info = case.info
        backbone = (LESA_WRN if info['wrn'] else LESA_ResNet)(
            depth=50,
            operator=dict(type='LESA', backend=backend),
            input_size=info['input_shape'][-2:],
            strides=info['strides'],
            **(DEFORMABLE if info['dcn'] else {}),
        )
        assert num_parameters(backbone) == info['num_parameters']
        backbone.load_state_dict(case.state_dict())
        backbone.eval()
        with torch.no_grad():
            outs = backbone(case.image())
        for name in case.arrays.files:
            out = outs[int(name[1]) - 2]
            actual = out.mean((2, 3)) if name.endswith('_mean') else out
            assert_close_to_largest(actual, case[name], 1e-3, name)

    @pytest.mark.parametrize('case', golden_cases('classifier'))
    def test_classifier(self, case):
        info, state = case.info, case.state_dict()
        backbone = LESA_ResNet(
            depth=50,
            operator=dict(type='LESA', position='flattened'),
            input_size=info['input_shape'][-2:],
            strides=info['strides'],
        )
        classifier = nn.Linear(2048, 1000)
        assert num_parameters(backbone) + num_parameters(classifier) == info['num_parameters']
        assert info['num_parameters'] == 23_777_512
        backbone.load_state_dict(state)
        classifier.load_state_dict({'weight': state['fc.weight'], 'bias': state['fc.bias']})
        backbone.eval()
        with torch.no_grad():
            logits = classifier(backbone(case.image())[-1].mean((2, 3)))
        assert_close_to_largest(logits, case['logits'], 1e-3, 'logits')


@pytest.mark.parametrize('kind, inner', [(LESA_ResNet, 64), (LESA_WRN, 128)])
@pytest.mark.parametrize('depth, blocks', [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3))])
def test_operators_are_where_the_paper_has_them(kind, inner, depth, blocks):
    backbone = kind(depth=depth)
    for stage, count in enumerate(blocks):
        layer = getattr(backbone, f'layer{stage + 1}')
        assert len(layer) == count
        for index, block in enumerate(layer):
            with_operator = stage == 3 or (stage == 2 and index > 0)
            assert isinstance(block.conv2, LESA) == with_operator
            assert isinstance(block.bn2, nn.Identity) == with_operator
            assert block.conv1.out_channels == inner * 2**stage
            assert block.conv3.out_channels == 256 * 2**stage


@pytest.mark.parametrize(
    'kwargs, sizes',
    [
        (dict(), {'layer3.1': (64, 64), 'layer4.0': (64, 64), 'layer4.1': (32, 32)}),
        (dict(input_size=(800, 1333)), {'layer3.1': (50, 84), 'layer4.2': (25, 42)}),
        (
            dict(input_size=(224, 224), strides=(1, 2, 2, 1)),
            {'layer3.5': (14, 14), 'layer4.0': (14, 14), 'layer4.2': (14, 14)},
        ),
        (dict(style='caffe'), {'layer3.1': (64, 64), 'layer4.0': (32, 32)}),
    ],
)
def test_map_sizes_follow_from_image_size_and_strides(kwargs, sizes):
    modules = dict(LESA_ResNet(depth=50, **kwargs).named_modules())
    for name, (height, width) in sizes.items():
        context = modules[f'{name}.conv2.context']
        assert context.feat_size == (height, width)
        assert len(context.height) == 2 * height - 1 and len(context.width) == 2 * width - 1


@pytest.mark.parametrize('size', [(96, 96), (97, 110), (129, 96)])
@pytest.mark.parametrize('kwargs', [dict(), DEFORMABLE, dict(strides=(1, 2, 2, 1))])
def test_any_image_size(size, kwargs):
    backbone = tiny(**kwargs)
    plain = tiny(operator=None, **kwargs)
    image = torch.randn(1, 3, *size)
    assert [x.shape for x in backbone(image)] == [x.shape for x in plain(image)]


@pytest.mark.parametrize('size', [(7, 5), (1, 9), (12, 16)])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_pooling_averages_what_exists_at_an_odd_border(size, stride):
    x = torch.randn(1, 3, *size)
    pooled = average_pool(stride)(x)
    # What a strided 3x3 convolution with padding would give.
    assert pooled.shape == (1, 3, -(-size[0] // stride), -(-size[1] // stride))
    for row in range(pooled.shape[2]):
        for col in range(pooled.shape[3]):
            rows, cols = (slice(stride * i, stride * (i + 1)) for i in (row, col))
            torch.testing.assert_close(pooled[..., row, col], x[..., rows, cols].mean((-1, -2)))


@pytest.mark.parametrize(
    'operator', [dict(type='LESA'), dict(type='LESA', fusion='static'), dict(type='SelfAttention')]
)
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_the_block_pools_the_operators_map_before_it_is_normed(operator, mode):
    torch.manual_seed(0)
    block = tiny(operator=dict(operator, num_heads=4)).layer4[0].train(mode == 'train')
    x = torch.randn(2, 128, 5, 4)
    expected = block.conv2(block.bn1(block.conv1(x)).relu())
    expected = block.bn2(average_pool(2)(expected)).relu()
    expected = block.bn3(block.conv3(expected)) + block.downsample(x)
    torch.testing.assert_close(block(x), expected.relu())


def test_plain_convolution_is_mmdets_resnet():
    torch.manual_seed(0)
    ours = LESA_ResNet(depth=18, base_channels=8, operator=None)
    theirs = MODELS.build(dict(type='ResNet', depth=18, base_channels=8))
    ours.load_state_dict(theirs.state_dict())
    ours.eval(), theirs.eval()
    image = torch.randn(1, 3, 64, 64)
    for actual, expected in zip(ours(image), theirs(image), strict=True):
        torch.testing.assert_close(actual, expected)


def test_operators_with_and_without_norm():
    for operator, kind in (
        (dict(type='SelfAttention', num_heads=4), SelfAttention),
        (dict(type='LESA', fusion='static', num_heads=4), LESA),
    ):
        block = tiny(operator=operator).layer4[0]
        assert isinstance(block.conv2, kind)
        assert isinstance(block.bn2, nn.BatchNorm2d)


def test_arguments_of_resnet_reach_the_operators():
    plugin = dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv2')
    backbone = tiny(
        norm_cfg=dict(type='SyncBN'),
        dilations=(1, 1, 2, 1),
        plugins=[plugin],
        **DEFORMABLE,
    )
    operator = backbone.layer3[1].conv2
    assert isinstance(operator.context.similarity_norm, nn.SyncBatchNorm)
    assert type(operator.local.conv).__name__ == 'DeformConv2dPack'
    assert operator.local.conv.dilation == (2, 2)
    assert backbone.layer3[1].with_plugins


@pytest.mark.parametrize('mode', [True, False])
def test_the_mode_is_set_and_the_backbone_returned(mode):
    backbone = tiny()
    assert backbone.train(mode) is backbone and backbone.eval() is backbone
    assert backbone.train(mode).layer4.training is mode


@pytest.mark.parametrize('operator', ['LESA', 'SelfAttention', 'AugmentedAttention', 'ELSA'])
def test_operators_are_leaves_for_fx(operator):
    extraction = pytest.importorskip('torchvision.models.feature_extraction')
    torch.manual_seed(0)
    own = dict(group_width=4) if operator == 'ELSA' else {}
    backbone = tiny(operator=dict(type=operator, num_heads=4, **own)).eval()
    image = torch.randn(1, 3, 96, 64)
    expected = backbone(image)
    graph = torch.fx.symbolic_trace(backbone)
    called = [node.target for node in graph.graph.nodes if node.op == 'call_module']
    assert called.count('layer4.1.conv2') == 1
    assert not any(name.startswith('layer4.1.conv2.') for name in called)
    assert all(map(torch.equal, graph(image), expected))
    extract = extraction.create_feature_extractor(
        backbone, {'layer3.1.conv2': 'operator', 'layer4': 'last'}
    )
    assert extract(image)['operator'].shape == (1, 32, 6, 4)
    assert torch.equal(extract(image)['last'], expected[-1])

    convolutions = tiny(operator=None).eval()
    for model in (backbone, convolutions):
        expected = model(image)
        turn_on_efficient_conv_bn_eval(nn.Sequential(model), '0')
        for actual, wanted in zip(model(image), expected, strict=True):
            torch.testing.assert_close(actual, wanted)


def resnets(draw):
    """Arguments of mmdet's ResNet."""
    num_stages = draw(st.integers(1, 4))

    def of_stages(values):
        return draw(st.lists(values, min_size=num_stages, max_size=num_stages).map(tuple))

    chosen = dict(
        depth=draw(st.sampled_from([18, 50])),
        num_stages=num_stages,
        base_channels=draw(st.sampled_from([4, 8])),
        strides=of_stages(st.integers(1, 2)),
        dilations=of_stages(st.integers(1, 2)),
        out_indices=(draw(st.integers(0, num_stages - 1)),),
        style=draw(st.sampled_from(['pytorch', 'caffe'])),
        deep_stem=draw(st.booleans()),
        avg_down=draw(st.booleans()),
        frozen_stages=draw(st.integers(-1, num_stages)),
        norm_eval=draw(st.booleans()),
        with_cp=draw(st.booleans()),
        zero_init_residual=draw(st.booleans()),
        norm_cfg=draw(
            st.sampled_from([dict(type='BN'), dict(type='GN', num_groups=2), dict(type='SyncBN')])
        ),
    )
    if chosen['depth'] == 50 and draw(st.booleans()):
        chosen.update(
            dcn=dict(type=draw(st.sampled_from(['DCN', 'DCNv2'])), deform_groups=1),
            stage_with_dcn=of_stages(st.booleans()),
        )
    return chosen


@settings(max_examples=12, deadline=None)
@given(chosen=st.composite(resnets)())
def test_without_an_operator_it_is_mmdets_resnet(chosen):
    backbones = []
    for kind in (LESA_ResNet, ResNet):
        own = dict(operator=None) if kind is LESA_ResNet else {}
        torch.manual_seed(0)
        # mmdet's Bottleneck pops from the dcn that it is given.
        backbones.append(kind(**copy.deepcopy(chosen), **own))
        backbones[-1].init_weights()
        backbones[-1].train()
    ours, theirs = backbones
    own, other = ours.state_dict(), theirs.state_dict()
    assert list(own) == list(other)
    # Deformable convolutions start as plain ones here, whatever init_cfg did to mmdet's.
    assert all(torch.equal(own[key], other[key]) for key in own if 'conv_offset' not in key)
    theirs.load_state_dict(own)
    for (name, mine), (other, their) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert (name, mine.requires_grad) == (other, their.requires_grad)
    assert [m.training for m in ours.modules()] == [m.training for m in theirs.modules()]
    if chosen['norm_cfg']['type'] == 'SyncBN':  # computes on a GPU only, or evaluated
        ours.eval(), theirs.eval()
    image = torch.randn(2, 3, 32, 48)
    assert all(map(torch.equal, ours(image), theirs(image)))


def test_a_dcn_that_no_stage_uses_is_a_warning(monkeypatch):
    said = []
    monkeypatch.setattr(arguments, 'print_log', lambda *text, **how: said.append((*text, how)))
    plain = tiny(operator=None, dcn=DCN)
    ((text, how),) = said
    assert text.startswith('there is a dcn, but stage_with_dcn is False for all stages')
    assert how == dict(logger='current', level=logging.WARNING)
    assert plain.state_dict().keys() == tiny(operator=None).state_dict().keys()


def test_every_parameter_learns():
    torch.manual_seed(0)
    backbone = tiny(norm_eval=False, input_size=(96, 96), **DEFORMABLE)
    backbone.init_weights()
    for block in (*backbone.layer3, *backbone.layer4):  # a zero here would hide what is before
        nn.init.ones_(block.norm3.weight)
    sum(x.square().mean() for x in backbone(torch.randn(2, 3, 96, 96))).backward()
    without = [name for name, p in backbone.named_parameters() if p.grad is None]
    assert not without


def test_checkpointing_changes_nothing():
    torch.manual_seed(0)
    backbone = tiny(norm_eval=True).double()  # sums of gradients may be in another order
    backbone.train()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    gradients = []
    for with_cp in (False, True):
        for block in (*backbone.layer3, *backbone.layer4):
            block.with_cp = with_cp
        backbone.zero_grad()
        sum(x.square().sum() for x in backbone(image)).backward()
        gradients.append([p.grad.clone() for p in backbone.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_frozen_stages_and_norms():
    backbone = tiny(frozen_stages=3, norm_eval=True)
    backbone.train()
    assert not any(p.requires_grad for p in backbone.layer3.parameters())
    assert all(p.requires_grad for p in backbone.layer4.parameters())
    assert not backbone.layer4[1].conv2.context.similarity_norm.training


@pytest.mark.parametrize('kind', [LESA_ResNet, LESA_WRN])
@pytest.mark.parametrize('zero_init', [True, False])
def test_residual_branches_start_from_zero(kind, zero_init):
    backbone = tiny(kind, zero_init_residual=zero_init)
    backbone.init_weights()
    for layer in (backbone.layer1, backbone.layer4):
        assert (layer[0].norm3.weight == (0 if zero_init else 1)).all()


@pytest.mark.parametrize('operator', [None, dict(type='LESA', num_heads=4)])
def test_deformable_convolutions_start_as_plain_ones(operator):
    backbone = tiny(operator=operator, **DEFORMABLE)
    backbone.init_weights()
    offsets = [p for name, p in backbone.named_parameters() if 'conv_offset' in name]
    assert len(offsets) == 2 * (4 + 6 + 3) and not any(p.any() for p in offsets)


def test_offsets_of_a_pretrained_backbone_stay(tmp_path):
    trained = tiny(**DEFORMABLE)
    for name, parameter in trained.named_parameters():
        if 'conv_offset' in name:
            nn.init.normal_(parameter)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'trained.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth'))
    backbone = tiny(**DEFORMABLE, init_cfg=init_cfg)
    backbone.init_weights()
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, trained.get_parameter(name))


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        (dict(depth=18), ValueError, 'stage 3 of depth 18 has BasicBlocks'),
        (dict(depth=77), ValueError, 'depth is 77, but has to be one of 18, 34, 50'),
        (
            dict(operator=dict(type='Lesa')),
            ValueError,
            "operator type 'Lesa' is unknown; available: AugmentedAttention, ELSA, LESA",
        ),
        (dict(operator=dict(type='ResNet')), ValueError, "operator type 'ResNet' is unknown"),
        (dict(stages_with_operator=(True,)), ValueError, 'True or False for each of 4 stages'),
        (
            dict(operator=dict(type='LESA', num_heads=7)),
            ValueError,
            'multiples of num_heads = 7, got 32 and 32',
        ),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        tiny(**kwargs)
