"""The wheel in another folder: its configs, and a foreign project that builds on them."""

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from mmengine.fileio import load
from packaging.requirements import Requirement

import lesa_mmdet
from lesa_mmdet import config_path

from helpers.paths import ROOT

SOURCES = ('README.md', 'LICENSE', 'MANIFEST.in', 'model-index.yml', 'pyproject.toml', 'setup.py')
EXAMPLE = ROOT / 'examples' / 'project'

# A training step and an inference of each config of the foreign project, at a small size.
BUILD_EXAMPLE = """
import json, sys
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope

import lesa_mmdet

result = dict(package=lesa_mmdet.__file__, config=lesa_mmdet.config_path(sys.argv[1]))
init_default_scope('mmdet')
for path in sorted(Path('configs').glob('*.py')):
    cfg = Config.fromfile(path)
    cfg.model.backbone.update(init_cfg=None, zero_init_residual=False)
    model = MODELS.build(cfg.model)
    model.init_weights()
    inputs = demo_mm_inputs(1, [(3, 128, 96)], num_items=[2], with_mask=True)
    inputs['data_samples'][0].gt_instances.labels.zero_()
    data = model.data_preprocessor(inputs, training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    operator = model.backbone.layer4[0].conv2
    model.eval()
    with torch.no_grad():
        detections = model(**data, mode='predict')
    result[path.stem] = dict(
        model=type(model).__name__,
        operator=type(operator).__name__,
        loss=loss.item(),
        learns=bool(operator.context.qkv.weight.grad.any()),
        images=len(detections),
    )
print(json.dumps(result))
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built of a copy of the sources."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    ignore = shutil.ignore_patterns('__pycache__')
    for folder in ('lesa_mmdet', 'configs'):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    pip('wheel', '--no-build-isolation', '--no-deps', '--wheel-dir', out, source)
    return next(out.glob('*.whl'))


def pip(*arguments):
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, arguments)]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8'
    )
    assert result.returncode == 0, result.stdout


def test_wheel_has_package_configs_and_index(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    files = [path for path in ROOT.glob('configs/**/*.*') if path.suffix != '.pyc']
    of_mim = {path.relative_to(ROOT).as_posix() for path in files} | {'model-index.yml'}
    own = [
        *ROOT.glob('lesa_mmdet/**/*.py'),
        ROOT / 'lesa_mmdet' / 'py.typed',
        *ROOT.glob('lesa_mmdet/visualization/web/*'),
    ]
    modules = {path.relative_to(ROOT).as_posix() for path in own}
    assert packed == {f'lesa_mmdet/.mim/{name}' for name in of_mim} | modules
    index = load(ROOT / 'model-index.yml')['Import']
    listed = {model['Config'] for path in index for model in load(ROOT / path)['Models']}
    assert {*index, *listed} <= of_mim


def test_both_distributions_bring_the_licence():
    ours, of_the_operators = (ROOT / folder / 'LICENSE' for folder in ('.', 'mmcv_torchvision'))
    assert of_the_operators.read_bytes() == ours.read_bytes()


def test_foreign_project_builds_on_the_installed_wheel(wheel, tmp_path):
    pip('install', '--no-deps', '--target', tmp_path / 'installed', wheel)
    shutil.copytree(EXAMPLE, tmp_path / 'project')
    name = 'mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024'
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', BUILD_EXAMPLE, name],
        cwd=tmp_path / 'project',
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'installed')},
        capture_output=True,
        encoding='utf-8',
    )
    assert result.returncode == 0, result.stderr[-5000:]
    result = json.loads(result.stdout.splitlines()[-1])
    package = tmp_path / 'installed' / 'lesa_mmdet'
    assert result.pop('package') == str(package / '__init__.py')
    assert result.pop('config') == str(package / '.mim' / 'configs' / f'{name}.py')
    assert {name: built['model'] for name, built in result.items()} == {
        'mask-rcnn_lesa-r50_balloon': 'MaskRCNN',
        'retinanet_lesa-r50_fpn_1x_coco': 'RetinaNet',
    }
    for built in result.values():
        assert built['operator'] == 'LESA' and built['images'] == 1
        assert 0 < built['loss'] < 100 and built['learns']


def test_documentation_shows_the_example_as_it_is():
    text = (ROOT / 'docs' / 'reuse.md').read_text(encoding='utf-8')
    for path in EXAMPLE.glob('configs/*.py'):
        assert f'```python\n{path.read_text(encoding="utf-8")}```' in text, (
            f'{path} is not in docs/reuse.md'
        )
    retinanet = (EXAMPLE / 'configs' / 'retinanet_lesa-r50_fpn_1x_coco.py').read_text(
        encoding='utf-8'
    )
    assert len(retinanet.splitlines()) == 10


@pytest.mark.parametrize('suffix', ['', '.py'])
def test_config_path_in_a_checkout(suffix):
    for name in ('_base_/default_runtime', 'mask_rcnn/mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024'):
        assert config_path(name + suffix) == str(ROOT / 'configs' / f'{name}.py')


def test_config_path_names_what_comes_close():
    with pytest.raises(
        FileNotFoundError, match=r'mask_rcnn/lesa-r50 is no config in .*; close to it: .*mask-rcnn'
    ):
        config_path('mask_rcnn/lesa-r50')
    with pytest.raises(FileNotFoundError, match='zzz is no config .*: _base_/.*faster_rcnn/'):
        config_path('zzz')


@pytest.mark.parametrize('missing', ['mmcv', 'mmcv._ext', 'mmdet', 'mmengine'])
def test_without_either_stack_one_sentence_names_both(missing):
    block = f"""
import sys
sys.modules[{missing!r}] = None
try:
    import lesa_mmdet
except ModuleNotFoundError as error:
    print('ERROR', error)
"""
    out = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', block],
        cwd=ROOT,
        capture_output=True,
        encoding='utf-8',
    )
    said = out.stdout.splitlines()[-1]
    assert said.startswith('ERROR lesa_mmdet needs mmcv with operators, mmengine and mmdet')
    assert missing in said and "OpenMMLab's" in said and "OneDL's" in said


@pytest.fixture(scope='module')
def of(wheel):
    """What the wheel requires with an extra, or with none: versions by names."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith('.dist-info/METADATA')]
        metadata = email.message_from_bytes(archive.read(name))
    required = [Requirement(line) for line in metadata.get_all('Requires-Dist')]
    assert metadata['Version'] == lesa_mmdet.__version__
    assert (
        metadata['Requires-Python'] == '>=3.10' and metadata['License-Expression'] == 'Apache-2.0'
    )
    return lambda extra: {
        r.name: r.specifier
        for r in required
        if r.marker is None or r.marker.evaluate(dict(extra=extra))
    }


def test_no_stack_is_required_and_extras_are_of_one_stack_each(of):
    base = of('')
    assert not any('mm' in name for name in base)
    stacks = {
        'openmmlab': {'mmcv-lite', 'mmdet', 'mmengine', 'setuptools'},
        'onedl': {'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine'},
    }
    for stack, names in stacks.items():
        assert of(stack).keys() - base.keys() == names
        pretrain = of(f'pretrain-{stack}').keys() - base.keys()
        assert pretrain == {'onedl-mmpretrain' if stack == 'onedl' else 'mmpretrain', 'torchvision'}
    # mmdet 3.3 refuses mmcv 2.2, and mmengine imports pkg_resources.
    assert of('openmmlab')['mmcv-lite'].contains('2.1.0') and not of('openmmlab')[
        'mmcv-lite'
    ].contains('2.2.0')
    assert not of('openmmlab')['setuptools'].contains('81')


@pytest.mark.parametrize('stack', ['openmmlab', 'onedl'])
def test_pinned_requirements_are_within_the_extras(stack, of):
    allowed = of(stack)
    for line in (ROOT / 'requirements' / f'{stack}.txt').read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            name, pinned = line.split('==')
            assert allowed[name].contains(pinned)
