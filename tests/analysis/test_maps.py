import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.cnn import build_conv_layer
from mmdet.models import DetDataPreprocessor
from mmengine.config import Config
from mmengine.registry import DefaultScope

from lesa_mmdet.analysis.maps import Recording, View, local_field, look, see
from lesa_mmdet.analysis.operators import get_operator, mixers, operators
from lesa_mmdet.apis.load import load_model
from lesa_mmdet.attention import fit_table, relative_logits
from lesa_mmdet.attention.decomposed.reference import attend_normalized
from lesa_mmdet.utils.images import read_image
from lesa_mmdet.visualization.panels import draw_maps

from helpers.detectors import run_main, save_coordinates, save_detector
from helpers.paths import ROOT

WIDTH, HEIGHT = 192, 128
POINTS = [(0, 0), (191, 0), (0, 127), (191, 127), (96, 64), (50, 100)]
OPERATORS = {
    'lesa': dict(type='LESA'),
    'static': dict(type='LESA', fusion='static'),
    'sa': dict(type='SelfAttention'),
    'augmented': dict(type='AugmentedAttention'),
    'conv': None,
}
MAIN = runpy.run_path(str(ROOT / 'tools' / 'analysis' / 'attention_map.py'))['main']


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    return save_coordinates(tmp_path_factory.mktemp('image') / 'image.png', WIDTH, HEIGHT)


@pytest.fixture(scope='module')
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp('detectors')
    return {name: save_detector(folder / name, operator) for name, operator in OPERATORS.items()}


@pytest.fixture(scope='module')
def model(detectors):
    """The LESA detector, its similarity norms not the identity they start as."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = load_model(*detectors['lesa'])
    torch.manual_seed(1)
    for name, tensor in model.backbone.state_dict().items():
        if 'similarity_norm' in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    return model


def pipeline_only(steps, scope='mmdet', load='LoadImageFromFile', divisor=1):
    """What :func:`see` needs of a model: the pipeline, and an input without normalization."""
    pack = dict(type='PackDetInputs' if scope == 'mmdet' else 'PackInputs')
    if scope == 'mmdet':
        pack['meta_keys'] = ('ori_shape', 'img_shape', 'scale_factor')
    dataset = dict(pipeline=[dict(type=load), *steps, pack])
    cfg = Config(dict(default_scope=scope, test_dataloader=dict(dataset=dataset)))
    preprocessor = DetDataPreprocessor(bgr_to_rgb=True, pad_size_divisor=divisor)
    return SimpleNamespace(cfg=cfg, data_preprocessor=preprocessor)


def shows(inputs, row, col, stride):
    """Lowest and highest (x, y) of the image that a cell of the input shows."""
    cell = inputs[0, :2, row * stride : (row + 1) * stride, col * stride : (col + 1) * stride]
    return cell.flatten(1).min(1).values.numpy(), cell.flatten(1).max(1).values.numpy()


@pytest.mark.parametrize('stride', [16, 32])
@pytest.mark.parametrize(
    ('steps', 'divisor'),
    [
        ([], 1),
        ([dict(type='Resize', scale=(160, 160), keep_ratio=False)], 1),
        ([dict(type='Resize', scale=(320, 200), keep_ratio=True)], 32),
        ([dict(type='Resize', scale=(250, 250), keep_ratio=True)], 1),
    ],
)
def test_the_position_of_a_point_shows_it(steps, divisor, stride, image):
    view, inputs = see(pipeline_only(steps, divisor=divisor), image)
    shape = [-(-length // stride) for length in inputs.shape[-2:]]
    for point in POINTS:
        row, col = view.position_of(point, shape)
        low, high = shows(inputs, row, col, stride)
        # An interpolated pixel lies between the centres of its neighbours.
        assert (low - 1 <= point).all() and (high + 1 >= point).all(), point


def test_the_position_of_a_point_in_a_centre_crop(image, mmpretrain):
    steps = [dict(type='ResizeEdge', scale=96), dict(type='CenterCrop', crop_size=80)]
    view, inputs = see(pipeline_only(steps, scope='mmpretrain'), image)
    assert inputs.shape[-2:] == (80, 80)  # of 144 x 96
    for point in [(96, 64), (44, 12), (147, 115)]:
        row, col = view.position_of(point, (5, 5))
        low, high = shows(inputs, row, col, 16)
        assert (low - 1 <= point).all() and (high + 1 >= point).all(), point
    first, last = inputs[0, :2, 0, 0], inputs[0, :2, -1, -1]
    np.testing.assert_allclose(view.to_image(np.zeros(2), (5, 5)), first - 0.25, atol=0.51)
    np.testing.assert_allclose(view.to_image(np.full(2, 5), (5, 5)), last + 1.25, atol=0.51)
    with pytest.raises(ValueError, match='keeps x from 43 to 148 and y from 11 to 116'):
        view.position_of((42, 64), (5, 5))


@given(
    st.tuples(st.integers(40, 900), st.integers(40, 900)),
    st.sampled_from([16, 32]),
    st.booleans(),
    st.data(),
)
def test_every_point_is_on_the_map_and_in_its_position(size, stride, keep_ratio, data):
    width, height = size
    scales = [800 / max(size)] * 2 if keep_ratio else [512 / width, 512 / height]
    seen = [round(length * scale) for length, scale in zip(size, scales, strict=True)]
    scale = [new / old for new, old in zip(seen, size, strict=True)]
    padded = [-(-length // 32) * 32 for length in seen]
    metainfo = dict(ori_shape=size[::-1], img_shape=seen[::-1], scale_factor=scale)
    view = View.from_metainfo(metainfo, padded[::-1])
    point = data.draw(st.tuples(st.integers(0, width - 1), st.integers(0, height - 1)))
    shape = [-(-length // stride) for length in padded[::-1]]
    row, col = view.position_of(point, shape)
    assert 0 <= row < shape[0] and 0 <= col < shape[1]
    first, last = view.to_image(np.array([(col, row), (col + 1, row + 1)]), shape)
    centre = np.array(point) + 0.5
    assert (first <= centre + 1e-6).all() and (centre - 1e-6 <= last).all()


@pytest.mark.parametrize('size', [(512, 16), (16, 512), (500, 1), (33, 40)])
@pytest.mark.parametrize('stride', [16, 32])
def test_the_stride_of_a_narrow_map(size, stride):
    shape = [-(-length // stride) for length in size[::-1]]
    view = View.from_metainfo(dict(ori_shape=size[::-1], img_shape=size[::-1]), size[::-1])
    for x in range(size[0]):
        assert view.position_of((x, 0), shape) == (0, x // stride)
    for y in range(size[1]):
        assert view.position_of((0, y), shape) == (y // stride, 0)


@pytest.mark.parametrize('point', [(192, 0), (0, 128), (-1, 5)])
def test_a_point_outside_the_image(point, model, image):
    with pytest.raises(ValueError, match='192 pixels wide and 128 high: x runs from 0 to 191'):
        look(model, image, point)


def capture_input(model, layer, image):
    """What the operator of a layer gets."""
    captured = []
    handle = get_operator(model, layer).register_forward_pre_hook(
        lambda module, inputs: captured.append(inputs[0])
    )
    model.backbone(see(model, image)[1])
    handle.remove()
    return captured[0]


@torch.no_grad()
@pytest.mark.parametrize(('layer', 'size'), [('layer3.1', 10), ('layer4.0', 10), ('layer4.2', 5)])
def test_weights_are_a_row_of_the_dense_softmax(layer, size, model, image):
    maps = look(model, image, (50, 100), [layer])[1][layer]
    # 192 x 128 becomes 160 x 160: x = 50.5 * 160 / 192 = 42.1, y = 100.5 * 160 / 128 = 125.6.
    stride = 160 // size
    assert maps.position == (125 // stride, 42 // stride)
    context, x = get_operator(model, layer).context, capture_input(model, layer, image)
    q, k, _ = context.project(x)
    height, width = fit_table(context.height, size), fit_table(context.width, size)
    row, col = relative_logits(q, height, width)
    values = torch.eye(size**2).expand(1, 8, -1, -1)  # of which the weights are the weighted sum
    dense = attend_normalized(q, k, values, row, col, context.similarity_norm)
    expected = dense[0, :, maps.position[0] * size + maps.position[1]].unflatten(-1, (size, size))
    torch.testing.assert_close(torch.from_numpy(maps.weights), expected, atol=1e-6, rtol=1e-4)
    assert maps.weights.std() > 1e-4  # not uniform, so that a wrong row differs
    torch.testing.assert_close(torch.from_numpy(maps.weights).sum((1, 2)), torch.ones(8))


@torch.no_grad()
def test_omega_is_that_of_both_terms(model, image):
    maps = look(model, image, (96, 64), ['layer4.1'])[1]['layer4.1']
    operator, x = get_operator(model, 'layer4.1'), capture_input(model, 'layer4.1', image)
    omega = operator.fusion(operator.local(x), operator.context(x))[0].mean(0)
    torch.testing.assert_close(torch.from_numpy(maps.omega), omega)


def test_the_default_layer_is_the_last_of_the_finest_map(model, image):
    assert list(look(model, image, (96, 64))[1]) == ['layer4.0']


def test_hooks_do_not_stay(model, image):
    look(model, image, (96, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_recording_looks_at_points_without_running_the_backbone_again(model, image):
    recording = Recording(model, image, operators(model), predict=True)
    handle = model.backbone.register_forward_hook(lambda *_: pytest.fail('the backbone ran'))
    try:
        looked = {point: recording.at(point, 'layer3.4') for point in ((0, 0), (96, 64))}
    finally:
        handle.remove()
    for point, maps in looked.items():
        expected = look(model, image, point, ['layer3.4'])[1]['layer3.4']
        for key in ('position', 'weights', 'field', 'omega'):
            np.testing.assert_array_equal(getattr(maps, key), getattr(expected, key))
    assert len(recording.prediction.pred_instances)
    assert recording.view == recording.view and not any(m._forward_hooks for m in model.modules())


def test_pixels_are_recorded_as_their_file_is(model, image):
    of_file, of_pixels = (
        Recording(model, source, operators(model)) for source in (image, read_image(image))
    )
    for point in ((0, 0), (96, 64)):
        expected, got = (r.at(point, 'layer4.1') for r in (of_file, of_pixels))
        assert got.position == expected.position
        np.testing.assert_array_equal(got.weights, expected.weights)


def test_a_recording_knows_its_memory(model, image):
    recording = Recording(model, image, operators(model))
    before = recording.nbytes
    kept = [t for record in recording._records.values() for t in record.values()]
    assert before == sum(t.nbytes for t in kept) > 100_000
    recording.at((0, 0), 'layer4.1')  # keeps queries and keys
    assert recording.nbytes > before


def test_a_convolution_has_a_field_alone(detectors, image):
    model = load_model(*detectors['conv'])
    layers = mixers(model)
    assert list(layers)[:3] == ['layer1.0', 'layer1.1', 'layer1.2'] and 'layer4.2' in layers
    recording = Recording(model, image, layers)
    maps = recording.at((96, 64), 'layer3.1')
    assert maps.weights is None and maps.omega is None and maps.shape == (10, 10)
    np.testing.assert_array_equal(maps.field[4], (5.5, 5.5))
    # Of stride 2: it is fed 20 x 20 positions, and its outputs are centred on the even ones.
    strided = recording.at((110, 64), 'layer3.0')
    assert strided.position == (10, 11) and strided.field[4].tolist() == [10.5, 10.5]
    figure = draw_maps(read_image(image), recording.view, (96, 64), maps)
    assert [axes.get_title() for axes in figure.axes] == ['point (96, 64)', 'local field']


def test_the_local_field_of_a_plain_convolution():
    conv = torch.nn.Conv2d(1, 1, 3, padding=2, dilation=2)
    expected = [(x + 0.5, y + 0.5) for y in (2, 4, 6) for x in (5, 7, 9)]
    np.testing.assert_array_equal(local_field(conv, (4, 7)), expected)


@torch.no_grad()
@pytest.mark.parametrize(('dcn', 'mask'), [('DCN', 1), ('DCNv2', 0.5)])
def test_the_local_field_is_where_a_deformable_convolution_samples(dcn, mask):
    conv = build_conv_layer(dict(type=dcn), 2, 2, 3, padding=1, groups=2, bias=False)
    torch.manual_seed(0)
    conv.conv_offset.bias[:18].uniform_(-1.5, 1.5)
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing='ij')
    ramps = torch.stack((x, y))[None]  # bilinear interpolation gives the position itself
    offsets = conv.conv_offset(ramps)
    field = local_field(conv, (4, 6), offsets[0, :, 4, 6])
    for tap, point in enumerate(field):
        conv.weight.zero_()
        conv.weight.flatten(1)[:, tap] = 1
        sampled = conv(ramps)[0, :, 4, 6] / mask
        np.testing.assert_allclose(point - 0.5, sampled, atol=1e-4)


def test_offsets_of_a_deformable_detector_are_those_at_the_position(tmp_path, image):
    dcn = dict(dcn=dict(type='DCN', deform_groups=1), stage_with_dcn=(False, True, True, True))
    model = load_model(*save_detector(tmp_path, OPERATORS['lesa'], **dcn))
    conv_offset = get_operator(model, 'layer3.2').local.conv.conv_offset
    torch.nn.init.normal_(conv_offset.weight, std=0.1)
    maps = look(model, image, (96, 64), ['layer3.2'])[1]['layer3.2']
    row, col = maps.position
    with torch.no_grad():
        offsets = conv_offset(capture_input(model, 'layer3.2', image))[0, :, row, col]
    taps = [(col + x + 0.5, row + y + 0.5) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    expected = np.array(taps) + offsets.reshape(9, 2).flip(1).numpy()
    assert offsets.abs().max() > 0.01
    np.testing.assert_allclose(maps.field, expected, atol=1e-5)


@pytest.mark.parametrize(
    ('operator', 'panels'),
    [
        ('lesa', ['point', 'local field', 'mean of heads', 'mean omega']),
        ('static', ['point', 'local field', 'mean of heads']),
        ('augmented', ['point', 'local field', 'mean of heads']),
        ('sa', ['point', 'mean of heads']),
    ],
)
def test_the_figure_has_what_the_operator_has(operator, panels, detectors, image):
    model = load_model(*detectors[operator])
    view, maps = look(model, image, (96, 64), ['layer3.1'])
    figure = draw_maps(read_image(image), view, (96, 64), maps['layer3.1'])
    titles = [axes.get_title() for axes in figure.axes]
    expected = [*panels, *(f'head {head}' for head in range(1, 9))]
    assert len(titles) == len(expected)
    assert all(title.startswith(start) for title, start in zip(titles, expected, strict=True))
    weights = maps['layer3.1'].weights
    assert f'head 8: max {weights[7].max():.3g}' in titles
    if 'local field' in titles:
        boxes = figure.axes[1].patches
        assert len(boxes) == 9
        # Cells of 160 / 10 pixels, in an image of 192 x 128 that became 160 x 160.
        assert (boxes[0].get_width(), boxes[0].get_height()) == pytest.approx((19.2, 12.8))
        assert boxes[4].get_xy() == pytest.approx((96, 64))


def test_a_classifier_is_looked_at_within_its_crop(tmp_path, image, mmpretrain):
    cfg = Config.fromfile(ROOT / 'configs' / 'imagenet' / 'lesa-resnet50_4xb32_in1k.py')
    cfg.model.backbone.base_channels = 16
    cfg.model.head.in_channels = 512
    from mmpretrain import get_model

    torch.save(dict(state_dict=get_model(cfg).state_dict()), tmp_path / 'classifier.pth')
    model = load_model(cfg, tmp_path / 'classifier.pth')
    view, maps = look(model, image, (96, 64))
    assert list(maps) == ['layer4.2']
    weights = maps['layer4.2'].weights
    assert weights.shape == (8, 14, 14) and maps['layer4.2'].position == (7, 7)
    np.testing.assert_allclose(weights.sum((1, 2)), 1, rtol=1e-5)
    # 384 x 256 pixels are cropped to 224 x 224.
    with pytest.raises(ValueError, match='keeps x from 40 to 151 and y from 8 to 119'):
        look(model, image, (96, 3))


def test_the_tool_draws_every_layer(run, detectors, image, tmp_path):
    out = run(
        *('tools/analysis/attention_map.py', image, *detectors['lesa'], '--point', 96, 64),
        *('--layer', 'all', '--out', tmp_path / 'maps', '--device', 'cpu'),
    )
    pictures = sorted((tmp_path / 'maps').iterdir())
    layers = [*(f'layer3.{i}' for i in range(1, 6)), *(f'layer4.{i}' for i in range(3))]
    assert [path.name for path in pictures] == [f'image_96-64_{layer}.png' for layer in layers]
    for path in pictures:
        assert str(path) in out
        assert min(read_image(path).shape[:2]) > 500


def test_the_tool_draws_one_file(detectors, image, tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'map.png'
    run_main(
        *(monkeypatch, MAIN, image, *detectors['sa'], '--point', 96, 64),
        *('--out', path, '--device', 'cpu'),
    )
    assert read_image(path).shape[2] == 3


@pytest.mark.parametrize(
    ('operator', 'options', 'message'),
    [
        (
            'lesa',
            ['--point', 192, 0],
            r'^error: point \(192, 0\) is outside the image, which is 192',
        ),
        ('lesa', ['--layer', 'layer2.0'], 'layer2.0.*layer3.1, layer3.2'),
        ('lesa', ['--layer', 'all', '--out', 'map.png'], 'one file for 8 layers'),
        ('conv', [], 'no operator'),
    ],
)
def test_bad_arguments(operator, options, message, detectors, image, tmp_path, monkeypatch):
    arguments = (image, *detectors[operator], '--point', 96, 64, '--out', tmp_path / 'out')
    with pytest.raises(SystemExit, match=message):
        run_main(monkeypatch, MAIN, *arguments, '--device', 'cpu', *options)
    assert not (tmp_path / 'out').exists()


def test_a_checkpoint_of_another_operator(detectors, image, tmp_path, monkeypatch):
    arguments = (image, detectors['sa'][0], detectors['lesa'][1], '--point', 96, 64)
    with pytest.raises(SystemExit, match='^error: '):
        run_main(monkeypatch, MAIN, *arguments, '--out', tmp_path / 'out', '--device', 'cpu')


def test_bad_images(detectors, tmp_path, monkeypatch):
    broken = tmp_path / 'broken.jpg'
    for content, message in ((None, 'does not exist'), (b'', 'no image'), (b'text', 'no image')):
        if content is not None:
            broken.write_bytes(content)
        with pytest.raises(SystemExit, match=f'^error: image .*broken.jpg .*{message}'):
            run_main(monkeypatch, MAIN, broken, *detectors['lesa'], '--point', 0, 0)
