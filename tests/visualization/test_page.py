"""The page without a browser: its models, and what it takes."""

import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from lesa_mmdet.apis.load import load_model

from helpers.detectors import run_main, save_coordinates, save_detector
from helpers.paths import ROOT

explorer = pytest.importorskip(
    'lesa_mmdet.visualization.page', reason='gradio is not installed', exc_type=ImportError
)
MAIN = runpy.run_path(str(ROOT / 'tools' / 'explore.py'))['main']


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('detectors')
    operators = {'lesa': dict(type='LESA'), 'conv': None}
    return {
        name: load_model(*save_detector(folder / name, operator))
        for name, operator in operators.items()
    }


def test_layers_are_those_where_a_model_attends(models):
    attending = [*(f'layer3.{i}' for i in range(1, 6)), *(f'layer4.{i}' for i in range(3))]
    assert explorer.Explorer(models).layers == attending
    assert explorer.Explorer({'conv': models['conv']}).layers[0] == 'layer1.0'
    with pytest.raises(ValueError, match='lesa and other have no block in common'):
        explorer.Explorer({'lesa': models['lesa'], 'other': models['lesa'].backbone.layer3})


def test_models_run_once_an_image(models, tmp_path):
    image = save_coordinates(tmp_path / 'image.png', 96, 64)
    runs = []
    handles = [
        model.backbone.register_forward_hook(lambda *_: runs.append(1)) for model in models.values()
    ]
    page = explorer.Explorer(models)
    scene = page.open(image)
    page.pictures(scene, 0.5)
    assert len(page.maps(scene, (10, 20), 'layer3.1')) == 2
    page.maps(scene, (30, 20), 'layer4.0')
    for handle in handles:
        handle.remove()
    assert len(runs) == 2


def test_uploads(tmp_path, monkeypatch):
    for suffix in ('bmp', 'jpg', 'png', 'webp'):
        path = tmp_path / f'image.{suffix}'
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(path)
        explorer.check_upload(path)
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / 'image.tiff')
    (tmp_path / 'text.png').write_text(
        '<svg xmlns="http://www.w3.org/2000/svg"/>', encoding='utf-8'
    )
    for name in ('image.tiff', 'text.png'):
        with pytest.raises(ValueError, match='no image of BMP, JPEG, PNG, WEBP, or broken'):
            explorer.check_upload(tmp_path / name)
    monkeypatch.setattr(explorer, 'MAX_PIXELS', 199)
    with pytest.raises(ValueError, match='has 20 x 10 pixels; at most 199 are taken'):
        explorer.check_upload(tmp_path / 'image.png')
    monkeypatch.setattr(explorer, 'MAX_BYTES', 10)
    with pytest.raises(ValueError, match='bytes; at most 10 are taken'):
        explorer.check_upload(tmp_path / 'image.png')


def test_the_tool_names_what_is_missing(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match='^error: .*none.py does not exist'):
        run_main(monkeypatch, MAIN, tmp_path / 'none.py', tmp_path / 'none.pth')
    with pytest.raises(SystemExit, match='^2$'):
        run_main(monkeypatch, MAIN, tmp_path / 'none.py')
    assert 'CONFIG and CHECKPOINT are needed' in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, 'lesa_mmdet.visualization.page')
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit, match="gradio, .*: pip install 'gradio>=6,<7'"):
        run_main(monkeypatch, MAIN, tmp_path / 'none.py', tmp_path / 'none.pth')
