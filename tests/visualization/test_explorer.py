"""Models that look at images, for the page: what they find, where they look, what is kept."""

import base64
import io
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from lesa_mmdet.analysis.maps import look
from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.errors import UserValueError
from lesa_mmdet.utils.images import read_image
from lesa_mmdet.visualization import explorer
from lesa_mmdet.visualization.explorer import Explorer, Scenes, fit_image, read_upload

from helpers.detectors import save_coordinates, save_detector


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('detectors')
    operators = {'lesa': dict(type='LESA'), 'conv': None}
    return {
        name: load_model(*save_detector(folder / name, operator))
        for name, operator in operators.items()
    }


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    return save_coordinates(tmp_path_factory.mktemp('images') / 'image.png', 96, 64)


def as_file(pixels, suffix='png', **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix, **options)
    return file.getvalue()


def test_layers_are_those_where_a_model_attends(models):
    attending = [*(f'layer3.{i}' for i in range(1, 6)), *(f'layer4.{i}' for i in range(3))]
    assert Explorer(models).layers == attending
    assert Explorer(models).first_layer == 'layer3.5'
    assert Explorer({'conv': models['conv']}).layers[0] == 'layer1.0'
    with pytest.raises(UserValueError, match='lesa and other have no block in common'):
        Explorer({'lesa': models['lesa'], 'other': models['lesa'].backbone.layer3})


def test_models_run_once_an_image(models, image):
    runs = []
    handles = [
        model.backbone.register_forward_hook(lambda *_: runs.append(1)) for model in models.values()
    ]
    looking = Explorer(models)
    scene = looking.open(read_image(image))
    assert len(looking.look(scene, (10, 20), 'layer3.1')) == 2
    looking.look(scene, (30, 20), 'layer4.0')
    for handle in handles:
        handle.remove()
    assert len(runs) == 2


def test_what_is_packed_is_what_the_model_does_there(models, image):
    looking = Explorer(models)
    scene = looking.open(read_image(image))
    of_lesa, of_conv = looking.look(scene, (50, 20), 'layer3.4')
    maps = look(models['lesa'], image, (50, 20), ['layer3.4'])[1]['layer3.4']
    expected = {f'head {k}': weights for k, weights in enumerate(maps.weights, 1)}
    expected |= {'mean of heads': maps.weights.mean(0), 'mean omega': maps.omega}
    assert {heat['name'] for heat in of_lesa['heats']} == set(expected)
    for heat in of_lesa['heats']:
        values = expected[heat['name']]
        low = values.min() if heat['name'] == 'mean omega' else 0
        assert (heat['low'], heat['high']) == pytest.approx((low, values.max()))
        levels = np.frombuffer(base64.b64decode(heat['values']), np.uint8).reshape(heat['shape'])
        unpacked = heat['low'] + levels / 255 * (heat['high'] - heat['low'])
        np.testing.assert_allclose(unpacked, values, atol=(heat['high'] - heat['low']) / 500)
    left, top, right, bottom = of_lesa['cell']
    assert left <= 50.5 <= right and top <= 20.5 <= bottom
    assert len(of_lesa['field']) == 9 and of_lesa['cell'] in of_lesa['field']
    assert of_conv['heats'] == [] and of_conv['field'] == of_lesa['field']
    with pytest.raises(UserValueError, match=r'point \(96, 0\) is outside the image'):
        looking.look(scene, (96, 0), 'layer3.4')
    with pytest.raises(UserValueError, match='no layer layer1.0: layer3.1, '):
        looking.look(scene, (0, 0), 'layer1.0')


def test_findings_are_the_predictions_above_a_score(models, monkeypatch):
    monkeypatch.setattr(explorer, 'MIN_SCORE', 0.5)
    mask = np.zeros((64, 96), np.uint8, order='F')
    mask[10:30, 20:60] = 1
    predictor = SimpleNamespace(
        categories=lambda: [dict(id=1, name='cat'), dict(id=7, name='dog')],
        describe=lambda _: [
            dict(category_id=1, score=0.6, bbox=[1, 2, 3, 4]),
            dict(
                category_id=7, score=0.9, bbox=[20, 10, 40, 20],
                segmentation=coco_masks.encode(mask),
            ),
            dict(category_id=1, score=0.4, bbox=[0, 0, 9, 9]),
        ],
    )  # fmt: skip
    dog, cat = explorer._find(predictor, None, (96, 64))
    assert cat == dict(name='cat', score=0.6, box=[1, 2, 4, 6])
    assert (dog['name'], dog['score'], dog['box']) == ('dog', 0.9, [20, 10, 60, 30])
    points = [point.split() for point in dog['outline'].strip('MZ').split('L')]
    (left, top), (right, bottom) = (
        extreme(np.array(points, float), axis=0) for extreme in (np.min, np.max)
    )
    np.testing.assert_allclose((left, top, right, bottom), (20, 10, 60, 30), atol=0.2)
    assert explorer._most_certain([[dog, cat]], (96, 64)) == (40, 20)
    assert explorer._most_certain([[]], (96, 64)) == (48, 32)


def test_small_images_are_shown_large_and_large_ones_scaled_before_the_model(models):
    looking = Explorer({'lesa': models['lesa']})
    small = looking.open(np.zeros((64, 96, 3), np.uint8))
    assert Image.open(io.BytesIO(small.image)).size == (960, 640) and small.size == (96, 64)
    large = looking.open(np.zeros((3000, 4000, 3), np.uint8))
    assert Image.open(io.BytesIO(large.image)).size == large.size == (1280, 960)
    assert large.recordings[0].prediction is None


@pytest.mark.parametrize('suffix', ['bmp', 'jpeg', 'png', 'webp'])
def test_uploads_of_these_formats_are_read(suffix):
    assert read_upload(as_file(np.full((10, 20, 3), 50, np.uint8), suffix)).shape == (10, 20, 3)


def test_an_upload_is_read_as_its_file_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # by 90 degrees
    for name, mode, options in (
        ('turned.jpeg', 'RGB', dict(exif=turned)),
        ('grey.png', 'L', {}),
        ('palette.png', 'P', {}),
        ('clear.png', 'RGBA', {}),
    ):
        Image.fromarray(pixels).convert(mode).save(tmp_path / name, **options)
        read = read_upload((tmp_path / name).read_bytes()).astype(int)
        expected = read_image(tmp_path / name)
        assert read.shape == expected.shape
        assert np.abs(read - expected).mean() < (1 if name.endswith('jpeg') else 0.01)
    for name, deep in (('colour.png', pixels), ('grey.png', pixels[..., 0])):
        cv2.imwrite(str(tmp_path / name), deep.astype(np.uint16) * 257)
        read = read_upload((tmp_path / name).read_bytes())
        np.testing.assert_array_equal(read, read_image(tmp_path / name))


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        as_file(np.zeros((10, 20, 3), np.uint8), 'tiff'),
        as_file(np.zeros((10, 20, 3), np.uint8), 'gif'),
        as_file(np.zeros((10, 20, 3), np.uint8), 'png')[:40],
        b'\x89PNG\r\n\x1a\n' + bytes(100),
    ],
    ids=['empty', 'svg', 'tiff', 'gif', 'cut off', 'zeros'],
)
def test_what_is_no_image_is_refused_in_a_sentence(content):
    with pytest.raises(
        UserValueError, match='^the file is no image of BMP, JPEG, PNG, WEBP, or broken$'
    ):
        read_upload(content)


def chunk(kind, length, content=b''):
    return length.to_bytes(4, 'big') + kind + content + bytes(4)


def peak():
    """The most memory that this process has had since it was last forgotten, in bytes."""
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    return 1024 * int(status.partition('VmHWM:')[2].split()[0])


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='Linux tells the memory')
def test_mutated_images_take_neither_memory_nor_time():
    """A PNG's chunks may say that they have gigabytes."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    png, rng = as_file(pixels), np.random.default_rng(0)
    files = []
    for kind in (b'IDAT', b'tEXt', b'acTL', b'fdAT', b'zTXt', b'iCCP', b'PLTE'):
        for length in (0x7FFFFFFF, 0x10000000):
            files.append(png[:33] + chunk(kind, length) + png[33:])
    for suffix in explorer.FORMATS:
        whole = np.frombuffer(as_file(pixels, suffix), np.uint8)
        for _ in range(300):
            mutated = whole.copy()
            end = rng.choice((40, len(whole)))
            mutated[rng.integers(0, end, rng.integers(1, 8))] = rng.choice((0, 127, 255))
            files.append(mutated.tobytes())
    Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')  # forget the peak
    before = peak()
    for number, content in enumerate(files):
        begun = time.process_time()
        try:
            assert read_upload(content).dtype == np.uint8
        except UserValueError as error:
            assert len(str(error)) < 200
        assert time.process_time() - begun < 2 and peak() - before < 500_000_000, number


def test_what_is_too_large_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(explorer, '_decode', lambda _: pytest.fail('decoded'))
    huge = as_file(np.zeros((6400, 6400), np.uint8))
    with pytest.raises(UserValueError, match='has 6400 x 6400 pixels; at most 40000000 are taken'):
        read_upload(huge)
    monkeypatch.setattr(explorer, 'MAX_BYTES', 10)
    with pytest.raises(UserValueError, match=f'has {len(huge)} bytes; at most 10 are taken'):
        read_upload(huge)


@pytest.mark.parametrize('size', [(3, 40_000), (40_000, 3), (1, 21), (2000, 99)])
def test_both_sides_of_an_image_are_bounded(size):
    height, width = size
    with pytest.raises(UserValueError, match=f'has {width} x {height} pixels; the longer side may'):
        read_upload(as_file(np.zeros((*size, 3), np.uint8)))
    long, short = fit_image(np.zeros((40_000, 2000, 3), np.uint8)).shape[:2]
    assert (long, short) == (1280, 64)


class FakeScene:
    def __init__(self, nbytes):
        self.nbytes = nbytes


def test_a_visitor_has_one_scene_and_all_together_keep_within_a_bound(monkeypatch):
    scenes = Scenes(max_bytes=100, max_age=60)
    for visitor in 'abc':
        scenes.put(visitor, FakeScene(30))
    scenes.put('a', replaced := FakeScene(35))
    assert len(scenes) == 3 and scenes.nbytes == 95 and scenes.get('a') is replaced
    scenes.get('b')  # now c has not looked for the longest time
    scenes.put('d', FakeScene(30))
    assert scenes.get('c') is None and scenes.get('b') and scenes.get('a')
    scenes.drop('b')
    scenes.drop('b')
    assert scenes.get('b') is None and scenes.nbytes == 65
    shared = FakeScene(60)
    scenes.put('e', shared)
    scenes.put('f', shared)
    assert scenes.get('e') is scenes.get('f') is shared and scenes.nbytes == 95
    scenes.put('g', FakeScene(1000))  # the last one stays
    assert scenes.get('g') and len(scenes) == 1
    now = explorer.monotonic() + 61
    monkeypatch.setattr(explorer, 'monotonic', lambda: now)
    assert scenes.get('g') is None and scenes.nbytes == 0


def test_what_clicks_keep_counts(models):
    looking = Explorer(models)
    scene = looking.open(np.zeros((64, 96, 3), np.uint8))
    before = scene.nbytes
    assert before > len(scene.image)
    looking.look(scene, (0, 0), 'layer3.1')
    assert scene.nbytes > before
