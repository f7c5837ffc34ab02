import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models import SwinTransformer
from mmdet.registry import MODELS
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from lesa_mmdet import ELSA, LESA, ELSA_Swin, LESA_ResNet, SelfAttention
from lesa_mmdet.checkpoints import convert_official

from helpers.golden import assert_close_to_largest, golden_cases

ARCHITECTURES = {
    'tiny': dict(),
    'small': dict(depths=(2, 2, 18, 2), operator=dict(type='ELSA', group_width=8)),
    'base': dict(
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        operator=dict(type='ELSA', group_width=8),
    ),
}


def tiny(**kwargs):
    """A backbone of few channels and blocks."""
    kwargs = {**dict(embed_dims=24, depths=(1, 1, 2, 2), num_heads=(1, 2, 4, 8)), **kwargs}
    kwargs.setdefault('operator', dict(type='ELSA', kernel_size=3, group_width=4))
    return ELSA_Swin(**kwargs)


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def compare(case, module, forward):
    """Outputs by name, the input's and all parameters' gradients with the authors'."""
    state = convert_official(case.state_dict())
    own = module.state_dict()
    state.update({key: own[key] for key in own if key.endswith('relative_position_index')})
    module.load_state_dict(state)
    module.train()  # without drop path the same as evaluation
    x = case.image().requires_grad_()
    outs = forward(x)
    grads = [
        torch.from_numpy(case.fill.image(case.info['seed'] + 1 + index, case[name].shape))
        for index, name in enumerate(outs)
    ]
    torch.autograd.backward(list(outs.values()), grads)
    for name, out in outs.items():
        assert_close_to_largest(out, case[name], 1e-5, name)
    assert_close_to_largest(x.grad, case['grad_input'], 1e-5, 'input gradient')
    expected = convert_official(case.group('grad/'))
    gradients = {name: p.grad for name, p in module.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_close_to_largest(gradient, expected[name], 1e-5, name)


class TestGolden:
    @pytest.mark.parametrize('case', golden_cases('elsa_block'))
    def test_block(self, case):
        backbone = ELSA_Swin(drop_path_rate=0.0)
        size = case.info['input_shape'][1:3]

        def forward(x):
            return {'output': block(x.flatten(1, 2), size).unflatten(1, size)}

        block = backbone.stages[0].blocks[0]
        assert num_parameters(block) == case.info['num_parameters']
        compare(case, block, forward)

    @pytest.mark.parametrize('case', golden_cases('elsa_window'))
    def test_window_attention(self, case):
        """Stage 4: two blocks, of which the second shifts."""
        arguments = case.info['arguments']
        backbone = ELSA_Swin(
            embed_dims=arguments['dim'],
            depths=(arguments['depth'],),
            num_heads=(arguments['num_heads'],),
            stages_with_operator=(False,),
            strides=(4,),
            out_indices=(0,),
            drop_path_rate=0.0,
        )
        size = case.info['input_shape'][1:3]
        compare(
            case,
            backbone.stages[0],
            lambda x: {'output': backbone.stages[0](x.flatten(1, 2), size)[0].unflatten(1, size)},
        )

    @pytest.mark.parametrize('case', golden_cases('elsa_stage'))
    def test_stage_and_merging(self, case):
        arguments = case.info['arguments']
        backbone = ELSA_Swin(
            embed_dims=arguments['dim'],
            depths=(arguments['depth'], 1),
            num_heads=(arguments['num_heads'], 4),
            operator=dict(type='ELSA', group_width=arguments['group_width']),
            stages_with_operator=(True, False),
            strides=(4, 2),
            out_indices=(0,),
            drop_path_rate=0.0,
        )
        size = case.info['input_shape'][1:3]

        def forward(x):
            down, down_size, out, _ = backbone.stages[0](x.flatten(1, 2), size)
            assert tuple(down_size) == tuple(-(-length // 2) for length in size)
            return {'output': out.unflatten(1, size), 'down': down.reshape(case['down'].shape)}

        compare(case, backbone.stages[0], forward)

    @pytest.mark.parametrize('case', golden_cases('elsa_swin'))
    def test_detection_backbone(self, case):
        backbone = ELSA_Swin(drop_path_rate=0.0)
        assert num_parameters(backbone) == case.info['num_parameters']
        backbone.load_state_dict(case.state_dict())
        x = case.image().requires_grad_()
        outs = backbone.train()(x)
        for name, out in zip(('c2', 'c3', 'c4', 'c5'), outs, strict=True):
            assert_close_to_largest(out, case[name], 1e-5, name)
        backbone.double()
        x = x.detach().double().requires_grad_()
        outs = backbone(x)
        grads = [
            torch.from_numpy(case.fill.image(case.info['seed'] + 1 + index, out.shape)).double()
            for index, out in enumerate(outs)
        ]
        torch.autograd.backward(outs, grads)
        assert_close_to_largest(x.grad, case['grad_input'].double(), 1e-5, 'input gradient')
        # One number each for every parameter of the authors', laid out as ours.
        norms = dict(zip(case.info['shapes'], case['grad_norms'].double(), strict=True))
        shapes = {key: torch.empty(shape) for key, shape in case.info['shapes'].items()}
        expected = {key: norms[theirs] for key, theirs in official_names(shapes).items()}
        gradients = {name: p.grad.norm() for name, p in backbone.named_parameters()}
        assert gradients.keys() == expected.keys()
        for name, norm in gradients.items():
            torch.testing.assert_close(norm, expected[name], rtol=1e-5, atol=0, msg=name)


def official_names(shapes):
    """What each converted parameter is called by the authors, told by a value of its own."""
    marked = {name: torch.full_like(x, number) for number, (name, x) in enumerate(shapes.items())}
    names = {}
    for key, value in convert_official(marked).items():
        (number,) = value.unique()
        names[key] = list(shapes)[int(number)]
    return names


@pytest.mark.parametrize(
    'kind, expected', [('tiny', 29_140_978), ('small', 52_874_626), ('base', 92_682_464)]
)
def test_number_of_parameters_of_the_classifiers(kind, expected):
    backbone = ELSA_Swin(**ARCHITECTURES[kind], out_indices=(3,))
    head = nn.Linear(backbone.num_features[-1], 1000)
    assert num_parameters(backbone) + num_parameters(head) == expected


@pytest.mark.parametrize('size', [(64, 64), (97, 70), (33, 130)])
@pytest.mark.parametrize(
    'operator',
    [
        dict(type='ELSA', kernel_size=5, dilation=2, group_width=2),
        dict(type='LESA', num_heads=2),
        dict(type='SelfAttention'),
        dict(type='AugmentedAttention'),
    ],
    ids=lambda operator: operator['type'],
)
def test_any_operator_and_any_image_size(size, operator):
    backbone = tiny(operator=operator, input_size=(64, 64))
    image = torch.randn(2, 3, *size)
    expected = [x.shape for x in tiny(operator=None)(image)]
    outs = backbone(image)
    assert [x.shape for x in outs] == expected
    sum(x.sum() for x in outs).backward()
    assert all(p.grad is not None for p in backbone.stages[0].parameters())


def test_operators_are_where_the_paper_has_them():
    backbone = ELSA_Swin()
    heads = (3, 6, 12)
    for stage, (index, blocks) in zip(backbone.stages, enumerate((2, 2, 6, 2)), strict=True):
        assert len(stage.blocks) == blocks
        for block in stage.blocks:
            if index == 3:
                assert type(block.attn).__name__ == 'ShiftWindowMSA'
            else:
                assert isinstance(block.attn.operator, ELSA)
                assert block.attn.operator.num_heads == heads[index]
    rates = [
        getattr(block.attn.drop, 'drop_prob', 0) for s in backbone.stages for block in s.blocks
    ]
    assert rates == pytest.approx(torch.linspace(0, 0.1, 12).tolist())


def test_map_sizes_follow_from_the_image_size():
    backbone = tiny(
        operator=dict(type='SelfAttention'), input_size=(100, 200), stages_with_operator=(True,) * 4
    )
    sizes = [stage.blocks[0].attn.operator.context.feat_size for stage in backbone.stages]
    assert sizes == [(25, 50), (13, 25), (7, 13), (4, 7)]


def test_without_an_operator_it_is_mmdets_swin():
    torch.manual_seed(0)
    ours = tiny(operator=None)
    theirs = MODELS.build(
        dict(
            type=SwinTransformer,  # mmpretrain has one of this name, too
            embed_dims=24,
            depths=(1, 1, 2, 2),
            num_heads=(1, 2, 4, 8),
        )
    )
    ours.load_state_dict(theirs.state_dict())
    ours.eval(), theirs.eval()
    image = torch.randn(1, 3, 64, 64)
    for actual, expected in zip(ours(image), theirs(image), strict=True):
        assert torch.equal(actual, expected)


def swins(draw):
    """Arguments of mmdet's SwinTransformer."""
    heads, patch_size = draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 4]))
    return dict(
        embed_dims=draw(st.sampled_from([8, 16])),
        depths=tuple(draw(st.lists(st.integers(1, 2), min_size=4, max_size=4))),
        num_heads=(heads, heads, 2 * heads, 4),
        window_size=draw(st.sampled_from([3, 7])),
        mlp_ratio=draw(st.sampled_from([2, 4])),
        strides=(patch_size, 2, 2, 2),
        patch_size=patch_size,
        out_indices=draw(st.sampled_from([(0, 1, 2, 3), (1, 3), (3,)])),
        qkv_bias=draw(st.booleans()),
        qk_scale=draw(st.sampled_from([None, 0.5])),
        patch_norm=draw(st.booleans()),
        drop_path_rate=draw(st.sampled_from([0.0, 0.2])),
        frozen_stages=draw(st.integers(-1, 4)),
        with_cp=draw(st.booleans()),
    )


@settings(max_examples=12, deadline=None)
@given(arguments=st.composite(swins)(), training=st.booleans())
def test_with_window_attention_it_is_mmdets_swin(arguments, training):
    ours, theirs = ELSA_Swin(operator=None, **arguments), SwinTransformer(**arguments)
    ours.train(training)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    theirs.train(training)
    for (name, mine), (other, their) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert (name, mine.requires_grad) == (other, their.requires_grad)
    assert [m.training for m in ours.modules()] == [m.training for m in theirs.modules()]
    image, outputs = torch.randn(2, 3, 48, 64), []
    for backbone in (ours, theirs):
        torch.manual_seed(0)  # of paths that are dropped
        outputs.append(backbone(image))
    assert all(map(torch.equal, *outputs))


@pytest.mark.parametrize('size, shifts', [((224, 224), 0), ((384, 384), 3), ((224, 384), 0)])
def test_windows_of_a_classifier_shift_where_there_are_several(size, shifts):
    for always, expected in ((True, 3), (False, shifts)):
        backbone = tiny(always_shift=always, input_size=size)
        assert [block.attn.shift_size for block in backbone.stages[3].blocks] == [0, expected]


def test_every_parameter_learns():
    torch.manual_seed(0)
    backbone = tiny()
    backbone.init_weights()
    sum(x.square().mean() for x in backbone(torch.randn(2, 3, 96, 96))).backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None]


def test_initialization():
    torch.manual_seed(0)
    backbone = ELSA_Swin()
    backbone.init_weights()
    block = backbone.stages[3].blocks[1]
    assert block.attn.w_msa.relative_position_bias_table.std().item() == pytest.approx(0.02, 0.05)
    assert block.ffn.layers[1].weight.std().item() == pytest.approx(0.02, 0.05)
    operator = backbone.stages[1].blocks[0].attn.operator
    assert operator.add.std().item() == pytest.approx(0.02, rel=0.05)
    assert operator.project.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_checkpointing_changes_nothing():
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = tiny(with_cp=with_cp, drop_path_rate=0.0).double().train()
        sum(x.square().sum() for x in backbone(image)).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_frozen_stages():
    backbone = tiny(frozen_stages=2)
    assert backbone.train() is backbone and backbone.eval() is backbone
    backbone.train()
    assert not any(p.requires_grad for p in backbone.stages[1].parameters())
    assert all(p.requires_grad for p in backbone.stages[2].parameters())
    assert not backbone.stages[0].training and backbone.stages[2].training


def test_out_indices():
    outs = tiny(out_indices=(1, 3))(torch.randn(1, 3, 64, 64))
    assert [x.shape[1:] for x in outs] == [(48, 8, 8), (192, 2, 2)]


def test_registered_in_mmdet_and_in_the_root():
    for registry in (MODELS, ROOT_MODELS):
        assert registry.get('ELSA_Swin') is ELSA_Swin


@pytest.mark.parametrize('strides, stage', [((1, 2, 2, 2), 3), ((1, 2, 2, 1), 2)])
def test_in_the_bottleneck_of_a_resnet(strides, stage):
    torch.manual_seed(0)
    backbone = LESA_ResNet(
        50,
        base_channels=8,
        operator=dict(type='ELSA', num_heads=4, kernel_size=3),
        strides=strides,
        dilations=(1, 1, 1, 2),
        norm_eval=False,
    )
    backbone.init_weights()
    block = backbone.layer4[1]
    assert isinstance(block.conv2, ELSA) and block.conv2.dilation == 2
    assert isinstance(block.bn2, nn.BatchNorm2d)
    for block in (*backbone.layer3, *backbone.layer4):  # a zero here would hide what is before
        nn.init.ones_(block.bn3.weight)
    outs = backbone(torch.randn(2, 3, 64, 64))
    assert [x.shape[-1] for x in outs] == [16, 8, 4, 4 if stage == 2 else 2]
    sum(x.square().mean() for x in outs).backward()
    assert all(p.grad is not None for p in backbone.layer4.parameters())


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (
            dict(operator=dict(type='Elsa')),
            "operator type 'Elsa' is unknown; available: .*ELSA, LE",
        ),
        (dict(stages_with_operator=(True,)), 'one True or False for each of 4 stages'),
        (dict(operator='ELSA'), "operator is 'ELSA', but has to be a dict with its type"),
        (dict(input_size=(0, 8)), r'input_size is \(0, 8\), but has to be'),
        (dict(operator=dict(type='ELSA', num_heads=5)), 'a multiple of num_heads = 5, got 24'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


def test_kinds_of_operators_are_what_they_are_called():
    backbone = tiny(operator=dict(type='LESA', num_heads=2), input_size=(64, 64))
    assert isinstance(backbone.stages[0].blocks[0].attn.operator, LESA)
    backbone = tiny(operator=dict(type=SelfAttention, num_heads=2), input_size=(64, 64))
    assert isinstance(backbone.stages[2].blocks[1].attn.operator, SelfAttention)
