import runpy

import numpy as np
import pytest
from torch import nn

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.images import read_image
from lesa_mmdet.visualization.compare import draw_comparison, draw_detections

from helpers.detectors import run_main, save_coordinates, save_detector
from helpers.paths import ROOT

MAIN = runpy.run_path(str(ROOT / 'tools' / 'analysis' / 'compare.py'))['main']


@pytest.fixture(scope='module')
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp('detectors')
    operators = {'lesa': dict(type='LESA'), 'conv': None}
    return [save_detector(folder / name, operator) for name, operator in operators.items()]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    (folder / 'notes.txt').write_text('no image', encoding='utf-8')
    return folder, [
        save_coordinates(folder / 'a.png', 120, 80),
        save_coordinates(folder / 'b.png', 80, 100),
    ]


def test_detections_above_the_threshold_are_drawn(detectors, images):
    model, image = load_model(*detectors[0]), images[1][0]
    assert (draw_detections(model, image, score_thr=0) != read_image(image)).any()
    np.testing.assert_array_equal(draw_detections(model, image, score_thr=1), read_image(image))


def test_a_model_that_is_no_detector(images):
    with pytest.raises(ValueError, match='Linear is no detector'):
        draw_detections(nn.Linear(1, 1), images[1][0])


def test_one_column_a_model_one_row_an_image():
    rng = np.random.default_rng(0)
    columns = [
        [rng.integers(0, 256, size, np.uint8) for size in ((80, 120, 3), (100, 80, 3))]
        for _ in range(3)
    ]
    figure = draw_comparison(columns, ['x', 'y', 'z'], ['a.png', 'b.png'])
    assert len(figure.axes) == 6
    shown = [axes.get_images()[0].get_array() for axes in figure.axes]
    for index, pixels in enumerate(shown):
        np.testing.assert_array_equal(pixels, columns[index % 3][index // 3])
    assert [axes.get_title() for axes in figure.axes] == ['x', 'y', 'z', '', '', '']
    assert [axes.get_ylabel() for axes in figure.axes] == ['a.png', '', '', 'b.png', '', '']


def test_the_tool_compares_models_on_a_folder(run, detectors, images, tmp_path):
    models = [argument for detector in detectors for argument in ('--models', *detector)]
    path = tmp_path / 'pictures' / 'compare.png'
    out = run(
        *('tools/analysis/compare.py', images[0], *models, '--score-thr', 0.1),
        *('--out', path, '--device', 'cpu'),
    )
    assert str(path) in out
    height, width = read_image(path).shape[:2]
    assert width == 1100 and height > width  # two columns; one image flat, one upright


def test_bad_images(detectors, tmp_path, monkeypatch):
    models = ('--models', *detectors[0], '--out', tmp_path / 'compare.png', '--device', 'cpu')
    with pytest.raises(SystemExit, match='^error: .* neither an image nor a folder'):
        run_main(monkeypatch, MAIN, tmp_path / 'none', *models)
    (tmp_path / 'broken.jpg').write_text('text', encoding='utf-8')
    with pytest.raises(SystemExit, match='^error: image .*broken.jpg cannot be read'):
        run_main(monkeypatch, MAIN, tmp_path / 'broken.jpg', *models)
    assert not (tmp_path / 'compare.png').exists()
