"""Operators from plain convolutions (``pytest -k from_resnet``)."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import nn

from lesa_mmdet import LESA_WRN, LESA_ResNet
from lesa_mmdet.checkpoints import resnet
from lesa_mmdet.checkpoints.fit import strict_loading
from lesa_mmdet.checkpoints.resnet import decompose_depthwise, decompose_grouped
from lesa_mmdet.models.layers import Site, build_operator

from helpers.backbones import mmdet_scope  # noqa: F401

CHANNELS, HEADS = 16, 4
TIMM = {'stem.7.': 'bn1.', 'stem.': 'conv1.'}
MMPRETRAIN = {
    f'stem.{3 * index + offset}.': f'stem.{index}.{name}.'
    for index in range(3)
    for offset, name in enumerate(('conv', 'bn'))
} | {f'layer1.0.downsample.{index + 1}.': f'layer1.0.downsample.{index}.' for index in (0, 1)}

every_lesa = pytest.mark.parametrize('fusion', ['dynamic', 'static'])


def low_rank_kernel(rank=CHANNELS // HEADS):
    """A kernel (C, C, 3, 3) of that rank for the inputs of each head."""
    grouped = torch.randn(HEADS, rank, CHANNELS // HEADS * 9)
    blocks = torch.randn(HEADS, CHANNELS, rank) @ grouped / CHANNELS
    return blocks.unflatten(2, (-1, 3, 3)).transpose(0, 1).flatten(1, 2)


def random_norm(channels=CHANNELS):
    norm = nn.BatchNorm2d(channels).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


def take_over(operator, conv, norm, silent=True):
    """Load what an operator takes over; returns what the norm behind it becomes, and the energy."""
    with torch.no_grad():
        taken = operator.from_convolution(conv, norm.state_dict(), zero_init_context=silent)
    operator.load_state_dict({**operator.state_dict(), **taken.state})
    behind = nn.BatchNorm2d(CHANNELS).eval()
    behind.load_state_dict(taken.norm)
    return behind, taken.energy


def build(kind, **options):
    torch.manual_seed(0)
    site = Site(CHANNELS, CHANNELS, feat_size=(5, 6), num_heads=HEADS)
    operator = build_operator(dict(type=kind, **options), site)
    operator.init_weights()
    return operator.eval()


@pytest.mark.parametrize('groups', [1, 2, 4, 16])
def test_from_resnet_truncation_is_the_best_and_its_energy_right(groups):
    torch.manual_seed(0)
    kernel = torch.randn(16, 16, 3, 3, dtype=torch.float64)
    grouped, project, energy = decompose_grouped(kernel, groups)
    x = torch.randn(2, 16, 7, 7, dtype=torch.float64)
    composed = torch.einsum(
        'ogr,grikl->ogikl',
        project.view(16, groups, -1),
        grouped.view(groups, 16 // groups, -1, 3, 3),
    ).flatten(1, 2)
    torch.testing.assert_close(
        F.conv2d(F.conv2d(x, grouped, groups=groups), project), F.conv2d(x, composed)
    )
    lost = (kernel - composed).square().sum() / kernel.square().sum()
    assert energy == pytest.approx(1 - float(lost))
    block = kernel[:, : 16 // groups].flatten(1)
    nearest = torch.linalg.matrix_norm(block - composed[:, : 16 // groups].flatten(1))
    values = torch.linalg.svdvals(block)[16 // groups :]
    assert float(nearest) == pytest.approx(float(values.square().sum().sqrt()), abs=1e-9)


@pytest.mark.parametrize('channels', [1, 7, 16, 200])
def test_from_resnet_depthwise_energy_is_right(channels):
    torch.manual_seed(0)
    kernel = torch.randn(16, 12, 3, 3, dtype=torch.float64)
    first, filters, last, energy = decompose_depthwise(kernel, channels)
    composed = torch.einsum('oc,ci,ckl->oikl', last, first, filters)
    lost = (kernel - composed).square().sum() / kernel.square().sum()
    assert energy == pytest.approx(1 - float(lost))
    assert energy == pytest.approx(1) if channels == 200 else energy < 1


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_from_resnet_half_precision_is_decomposed_in_float32(dtype):
    kernel = torch.randn(16, 16, 3, 3).to(dtype)
    *halves, energy = decompose_grouped(kernel, 4)
    *wholes, expected = decompose_grouped(kernel.float(), 4)
    assert all(map(torch.equal, halves, wholes)) and energy == expected
    assert decompose_grouped(torch.zeros_like(kernel), 4)[2] == 1


@every_lesa
def test_from_resnet_kernel_of_low_rank_is_reproduced(fusion):
    operator, kernel, norm = build('LESA', fusion=fusion), low_rank_kernel(), random_norm()
    behind, energy = take_over(operator, dict(weight=kernel), norm)
    x = torch.randn(2, CHANNELS, 5, 6).relu()
    expected = norm(F.conv2d(x, kernel, padding=1))
    out = operator(x) if fusion == 'dynamic' else behind(operator(x))
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)
    assert energy == pytest.approx(1, abs=1e-5)


class TestInputs:
    def seen(self, count=2000):
        """Inputs that vary in some directions far more than in others."""
        mixing = torch.randn(CHANNELS * 9, CHANNELS * 9) * torch.logspace(0, -2, CHANNELS * 9)
        return (torch.randn(count, CHANNELS * 9) @ mixing.T + 1).unflatten(1, (CHANNELS, 3, 3))

    def test_from_resnet_outputs_are_as_near_as_can_be(self):
        torch.manual_seed(0)
        kernel, x = torch.randn(CHANNELS, CHANNELS, 3, 3), self.seen()
        rank = CHANNELS // HEADS
        block = x[:, :rank]  # of one group: between groups, nothing is fitted
        lost = []
        for inputs in (None, x):
            grouped, project, _ = decompose_grouped(kernel, HEADS, inputs)
            composed = torch.einsum('or,rikl->oikl', project[:, :rank, 0, 0], grouped[:rank])
            out = F.conv2d(block, kernel[:, :rank] - composed)
            lost.append(float(out.var(0).sum()))
        factor = torch.linalg.cholesky(block.flatten(1).T.cov())
        values = torch.linalg.svdvals(kernel[:, :rank].flatten(1) @ factor)
        assert lost[1] == pytest.approx(float(values[rank:].square().sum()), rel=0.01)
        assert lost[1] < lost[0]

    def test_from_resnet_low_rank_stays_exact(self):
        torch.manual_seed(0)
        kernel, x = low_rank_kernel(), self.seen()
        grouped, project, energy = decompose_grouped(kernel, HEADS, x)
        nearest = F.conv2d(F.conv2d(x, grouped, groups=HEADS), project)
        torch.testing.assert_close(nearest, F.conv2d(x, kernel), atol=1e-3, rtol=1e-3)
        assert energy == pytest.approx(1, abs=1e-4)

    @every_lesa
    def test_from_resnet_statistics_are_those_of_what_is_normed(self, fusion):
        torch.manual_seed(0)
        operator, x = build('LESA', fusion=fusion), self.seen()
        kernel = torch.randn(CHANNELS, CHANNELS, 3, 3)
        outputs = F.conv2d(x, kernel).flatten(1)
        norm = nn.BatchNorm2d(CHANNELS)
        norm.running_mean.copy_(outputs.mean(0)), norm.running_var.copy_(outputs.var(0))
        take_over(operator, dict(weight=kernel, inputs=x), norm)
        local = operator.local
        nearest = local.project(F.conv2d(x, local.conv.weight, groups=HEADS)).flatten(1)
        torch.testing.assert_close(local.norm.running_mean, nearest.mean(0), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(local.norm.running_var, nearest.var(0), atol=1e-3, rtol=1e-3)

    def test_from_resnet_inputs_are_what_convolutions_see(self):
        given = plain(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)).eval()
        names = ['layer3.1.conv2', 'layer4.1.conv2']
        expected = {}
        hooks = [
            given.get_submodule(name).register_forward_hook(
                lambda _, args, out, name=name: expected.setdefault(name, out)
            )
            for name in names
        ]
        inputs = resnet.collect_inputs(given, names, [torch.rand(1, 3, 64, 64)], samples=100)
        assert len(hooks) == len(inputs) == 2 and inputs[names[0]].shape == (16, 32, 3, 3)
        for name in names:  # at all positions, in any order
            out = F.conv2d(inputs[name], given.get_submodule(name).weight).flatten(1)
            values = expected[name][0].flatten(1).T
            order, other = (x[:, 0].argsort() for x in (out, values))
            torch.testing.assert_close(out[order], values[other], atol=1e-5, rtol=1e-4)


@every_lesa
def test_from_resnet_context_learns_to_speak(fusion):
    operator = build('LESA', fusion=fusion)
    take_over(operator, dict(weight=low_rank_kernel()), random_norm())
    operator(torch.randn(1, CHANNELS, 5, 6)).square().sum().backward()
    assert operator.context.output_norm.weight.grad.abs().sum() > 0
    speaking = build('LESA', fusion=fusion)
    take_over(speaking, dict(weight=low_rank_kernel()), random_norm(), silent=False)
    assert torch.equal(speaking.context.output_norm.weight, torch.ones(CHANNELS))


def test_from_resnet_flattened_positions_are_silent_too():
    operator, kernel, norm = build('LESA', position='flattened'), low_rank_kernel(), random_norm()
    take_over(operator, dict(weight=kernel), norm)
    x = torch.randn(1, CHANNELS, 5, 6)
    expected = norm(F.conv2d(x, kernel, padding=1))
    torch.testing.assert_close(operator(x), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize('options', [{}, dict(lam=1.0), dict(gamma=0.5), dict(kernel_size=3)])
def test_from_resnet_elsa_takes_a_kernel_of_few_filters(options):
    torch.manual_seed(1)
    matrices = torch.randn(2, CHANNELS, CHANNELS // 4) @ torch.randn(2, CHANNELS // 4, CHANNELS)
    kernel = torch.einsum('foi,fkl->oikl', matrices, torch.randn(2, 3, 3)) / CHANNELS
    operator, norm = build('ELSA', **options), random_norm()
    behind, energy = take_over(operator, dict(weight=kernel), norm)
    x = torch.randn(1, CHANNELS, 9, 9)
    expected = norm(F.conv2d(x, kernel, padding=1))
    torch.testing.assert_close(behind(operator(x)), expected, atol=1e-4, rtol=1e-3)
    assert energy == pytest.approx(1, abs=1e-5)


def test_from_resnet_elsa_without_fixed_weights_starts_fresh():
    operator = build('ELSA', lam=1.0, gamma=0.0)
    _, energy = take_over(operator, dict(weight=low_rank_kernel()), random_norm())
    assert energy is None


def test_from_resnet_augmented_attention_keeps_its_convolutions_share():
    operator, kernel, norm = build('AugmentedAttention'), low_rank_kernel(), random_norm()
    behind, energy = take_over(operator, dict(weight=kernel), norm)
    x, kept = torch.randn(1, CHANNELS, 5, 6), operator.conv.out_channels
    out, expected = behind(operator(x)), norm(F.conv2d(x, kernel, padding=1))
    torch.testing.assert_close(out[:, :kept], expected[:, :kept])
    torch.testing.assert_close(out[:, kept:], norm.bias[kept:, None, None].expand_as(out[:, kept:]))
    share = kernel[:kept].square().sum() / kernel.square().sum()
    assert energy == pytest.approx(float(share), abs=1e-5) and 0 < kept < CHANNELS


def test_from_resnet_self_attention_takes_the_norms_factors_alone():
    operator, norm = build('SelfAttention'), random_norm()
    behind, energy = take_over(operator, dict(weight=low_rank_kernel()), norm)
    assert energy is None and torch.equal(behind.weight, norm.weight)
    assert torch.equal(behind.running_var, torch.ones(CHANNELS))


@pytest.mark.parametrize('given', ['plain', 'deformable'])
def test_from_resnet_deformable_local_term(given):
    dcn = dict(type='DCN', deform_groups=1)
    operator, norm = build('LESA', dcn=dcn), random_norm()
    conv = MODELS.build(dict(dcn, in_channels=CHANNELS, out_channels=CHANNELS, kernel_size=3))
    conv = type(conv)(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    conv.weight.data = low_rank_kernel()
    if given == 'deformable':
        nn.init.normal_(conv.conv_offset.weight, std=0.1)
    state = {
        key: value
        for key, value in conv.state_dict().items()
        if given == 'deformable' or 'offset' not in key
    }
    take_over(operator, state, norm)
    x = torch.randn(1, CHANNELS, 5, 6)
    torch.testing.assert_close(operator(x), norm(conv(x)), atol=1e-4, rtol=1e-3)


def backbone(kind=LESA_ResNet, operator=dict(type='LESA', num_heads=4), **options):
    options = {'base_channels': 8, 'input_size': (64, 64), 'pretrained_conv': True, **options}
    return kind(options.pop('depth', 50), operator=operator, **options)


def plain(kind=LESA_ResNet, **options):
    torch.manual_seed(0)
    return backbone(kind, operator=None, **options)


def detectors():
    """RetinaNets, one of convolutions and one of LESA that can be made of it."""
    neck = dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=8, num_outs=5)
    head = dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8)
    of = dict(type='LESA_ResNet', depth=50, base_channels=8, input_size=(64, 64))
    lesa = dict(of, operator=dict(type='LESA', num_heads=4), pretrained_conv=True)
    return [
        MODELS.build(dict(type='RetinaNet', backbone=each, neck=neck, bbox_head=head))
        for each in (dict(of, operator=None), lesa)
    ]


class TestBackbone:
    def test_from_resnet_log_says_what_was_made_and_what_is_fresh(self, told):
        backbone().load_state_dict({**plain().state_dict(), 'fc.weight': torch.zeros(10, 256)})
        (line,) = [line for line in told if 'convolutions' in line]
        assert line.startswith('8 operators (layer3.1 to layer4.2) are made of convolutions: ')
        assert line.endswith('in the median; fresh, silent: context, fusion.')

    @pytest.mark.parametrize('kind', [LESA_ResNet, LESA_WRN])
    def test_from_resnet_equals_where_nothing_is_lost(self, kind, monkeypatch):
        """With one head for a kernel of full rank and no stride, the network stays what it was."""
        given = plain(kind, strides=(1, 2, 2, 1))
        operator = dict(type='LESA', num_heads=1)
        ours = backbone(kind, operator, strides=(1, 2, 2, 1))
        for key, value in (state := given.state_dict()).items():
            if key.endswith('conv2.weight'):
                left, values, right = torch.linalg.svd(value.flatten(1), full_matrices=False)
                state[key] = (left * values @ right).view_as(value)
        ours.load_state_dict(state)
        image = torch.rand(1, 3, 64, 64)
        given.eval(), ours.eval()
        for got, expected in zip(ours(image), given(image), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize('names', [TIMM, MMPRETRAIN, {}])
    def test_from_resnet_deep_stem_in_any_names(self, names):
        given = plain(deep_stem=True, avg_down=True, stem_channels=8)
        state = given.state_dict()
        renamed = {}
        for key, value in state.items():
            old = next((old for old in names if key.startswith(old)), '')
            renamed[names.get(old, '') + key[len(old) :]] = value
        ours = backbone(deep_stem=True, avg_down=True, stem_channels=8)
        ours.load_state_dict(renamed)
        assert len(renamed) == len(state)
        assert torch.equal(ours.stem[7].weight, given.stem[7].weight)
        assert torch.equal(ours.stem[3].weight, given.stem[3].weight)
        shortcuts = (each.layer1[0].downsample for each in (ours, given))
        assert all(map(torch.equal, *(shortcut.parameters() for shortcut in shortcuts)))

    def test_from_resnet_own_weights_are_not_decomposed_again(self, monkeypatch):
        source = backbone()
        source.load_state_dict(plain().state_dict())

        def fail(*_):
            raise AssertionError('decomposed again')

        monkeypatch.setattr(torch.linalg, 'svd', fail)
        again = backbone()
        again.load_state_dict(source.state_dict())
        for key, value in again.state_dict().items():
            assert torch.equal(value, source.state_dict()[key])

    def test_from_resnet_operators_that_are_there_stay(self):
        of_stage_4 = backbone(stages_with_operator=(False, False, False, True))
        of_both = backbone()
        of_both.load_state_dict(state := of_stage_4.state_dict())
        loaded = of_both.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state if 'layer4' in key)

    def test_from_resnet_inside_a_detector(self):
        given, ours = detectors()
        ours.load_state_dict(state := given.state_dict())
        kept = {key for key in state if key in ours.state_dict()}
        assert all(torch.equal(state[key], ours.state_dict()[key]) for key in kept)
        assert len(kept) > 200 and any(key.startswith('bbox_head') for key in kept)


class TestBadInput:
    def refused(self, state, match, **options):
        with pytest.raises(ValueError, match=match):
            backbone(**options).load_state_dict(state)

    def test_from_resnet_without_the_argument_it_is_named(self):
        self.refused(plain().state_dict(), 'pretrained_conv=True', pretrained_conv=False)

    @pytest.mark.parametrize('depths', [(50, 101), (101, 50)])
    def test_from_resnet_depth(self, depths):
        given, ours = depths
        self.refused(
            plain(depth=given).state_dict(),
            r'3, 4, \d+, 3 blocks, those of the backbone 3, 4, \d+, 3 \(depth\)',
            depth=ours,
        )

    def test_from_resnet_basic_blocks(self):
        self.refused(
            plain(depth=18).state_dict(), 'its stages have 2, 2, 2, 2 blocks, those of the backbone'
        )

    @pytest.mark.parametrize('name', ['pretrained_conv', 'zero_init_context'])
    def test_from_resnet_path_in_the_place_of_a_flag(self, name):
        with pytest.raises(ValueError, match=f"{name} is 'x.pth', but has to be True or False"):
            backbone(**{name: 'x.pth'})

    def test_from_resnet_width(self):
        self.refused(
            plain(LESA_WRN).state_dict(), r'layer3.1.conv2.weight, which is .*LESA_WRN for wide'
        )

    @pytest.mark.parametrize('deep', [True, False])
    def test_from_resnet_stem(self, deep):
        state = plain(deep_stem=deep, stem_channels=8).state_dict()
        self.refused(state, r'\(deep_stem\)', deep_stem=not deep, stem_channels=8)

    def test_from_resnet_groups(self):
        state = plain().state_dict()
        state['layer3.1.conv2.weight'] = state['layer3.1.conv2.weight'][:, ::8]
        self.refused(state, 'without groups')

    def test_from_resnet_statistics(self):
        state = {key: v for key, v in plain().state_dict().items() if 'running' not in key}
        self.refused(state, r'no running_mean, running_var of layer3\.1\.bn2: .*its statistics')

    def test_from_resnet_not_finite(self):
        state = plain().state_dict()
        state['layer4.0.conv2.weight'][0, 0, 0, 0] = float('nan')
        self.refused(state, r'layer4\.0\.conv2\.weight of the checkpoint is not finite')

    def test_from_resnet_is_nothing_to_resume_from(self):
        given, ours = detectors()
        with pytest.raises(ValueError, match=r'layer3\.1\.conv2\), .*load_from'):
            with strict_loading(ours, given.state_dict(), exact=True):
                pass
        with strict_loading(ours, given.state_dict()):
            ours.load_state_dict(given.state_dict())

    def test_from_resnet_meta_device(self):
        with torch.device('meta'):
            ours = backbone()
        with pytest.raises(ValueError, match='meta device'):
            ours.load_state_dict(plain().state_dict())


def test_from_resnet_names_of_torchvision():
    models = pytest.importorskip('torchvision.models')
    for kind, name in ((LESA_ResNet, 'resnet50'), (LESA_WRN, 'wide_resnet50_2')):
        with torch.device('meta'):
            theirs = getattr(models, name)().state_dict()
            ours = kind(50, operator=None).state_dict()
        assert {key for key in theirs if not key.startswith('fc.')} == ours.keys()
        assert all(theirs[key].shape == ours[key].shape for key in ours)


def test_from_resnet_stages_of_what_is_no_resnet_say_nothing():
    assert resnet.different_stages(['stages.0.blocks.1.weight'], ['layer1.0.conv1.weight']) == ''
