"""Code in the documentation: Python runs, configs are read, commands have the options they name."""

import inspect
import re
import shlex
from pathlib import Path

import measure
import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser

from lesa_mmdet.engine.launch import find_tool
from lesa_mmdet.utils.command import add_model_options, add_out, add_repeatable

from helpers.detectors import save_detector
from helpers.paths import ROOT

PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]
TOOL = re.compile(r'^(?:[A-Z_]+=\S+ )*(?:python )?((?:tools|benchmarks)/[\w/]+\.(?:py|sh))\b')


def blocks(language):
    """All code blocks of a language as pytest parameters: the page, and sybil's example."""
    parser = CodeBlockParser(language=language, evaluator=lambda example: None)
    sybil = Sybil([parser])
    found = []
    for page in sorted(PAGES):
        for example in sybil.parse(page).examples():
            id = f'{page.name}:{example.line}'
            found.append(pytest.param(page, example.parsed, id=id))
    return found


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Files that the examples name."""
    folder = tmp_path_factory.mktemp('docs')
    (folder / 'photos').mkdir()
    y, x = np.mgrid[:140, :160].astype(np.uint8)
    for name in ('image.jpg', 'photos/139.jpg'):
        mmcv.imwrite(np.stack((x, y, x), axis=-1), str(folder / name))
    return folder


@pytest.fixture(scope='module')
def detector(folder):
    config, checkpoint = save_detector(folder / 'detector', dict(type='LESA'))
    return dict(config=str(config), checkpoint=str(checkpoint))


@pytest.fixture(scope='module')
def namespaces():
    """Names that the blocks of a page define, for the next ones on it."""
    return {}


@pytest.mark.parametrize(('page', 'code'), blocks('python'))
def test_python(page, code, folder, detector, namespaces, monkeypatch, request):
    if '_base_ =' in code:
        if '_in1k' in code or 'mmseg::' in code:
            request.getfixturevalue('mmpretrain')
        if 'mmseg::' in code:
            pytest.importorskip('mmseg', reason='mmsegmentation is not installed: run make test')
        read_config(code, monkeypatch)
        return
    monkeypatch.chdir(folder)
    names = namespaces.setdefault(page, dict(detector))
    if 'batch' in code and 'batch' not in names:
        names['batch'] = a_batch(folder, detector)
    exec(compile(code, str(page), 'exec'), names)


def a_batch(folder, detector):
    """A batch of a detector's test images."""
    from mmdet.utils import get_test_pipeline_cfg
    from mmengine.dataset import Compose

    pipeline = Compose(get_test_pipeline_cfg(Config.fromfile(detector['config'])))
    return pseudo_collate([pipeline(dict(img_path=str(folder / 'image.jpg'), img_id=0))])


def read_config(code, monkeypatch):
    """Read a config as if it stood beside its base."""
    base = re.search(r"'\./([^']+)'", code)
    folder = next(ROOT.glob(f'configs/*/{base[1]}')).parent if base else ROOT
    path = folder / 'config_in_documentation.py'
    monkeypatch.chdir(ROOT)
    path.write_text(str(code), encoding='utf-8')
    try:
        assert Config.fromfile(path).model.backbone.type.startswith('LESA_')
    finally:
        path.unlink()


# What declares options of several tools.
DECLARE_OPTIONS = (add_model_options, add_out, add_repeatable, measure.make_parser)


@pytest.mark.parametrize(('page', 'code'), blocks('bash'))
def test_commands_name_tools_and_options_that_exist(page, code):
    for line in re.sub(r'\\\n\s*', ' ', code).splitlines():
        command = TOOL.match(line.strip())
        if command:
            assert (ROOT / command[1]).is_file(), line
            source = options_source(command[1])
            if source is None:
                continue
            for option in re.findall(r'(?<=\s)--?[a-z][\w-]*', line.split('#')[0]):
                declared = re.search(rf"'{option}[' ]", source)  # alone, or before its values
                assert declared, f'{command[1]} has no {option}: {line}'
        target = re.match(r'make (\w+)', line.strip())
        if target:
            assert re.search(
                rf'^{target[1]}:', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.M
            ), line


def options_source(tool):
    """Source of what parses the options of a tool; None if others get them."""
    name = Path(tool).stem.replace('dist_', '').replace('slurm_', '')
    sources = [ROOT / tool]
    if name in ('train', 'test'):
        sources += [find_tool(f'{name}.py')]
    elif tool.endswith('.sh'):
        return None
    text = '\n'.join(source.read_text(encoding='utf-8') for source in sources)
    shared = [add for add in DECLARE_OPTIONS if f'{add.__name__}(' in text]
    return '\n'.join([text, *map(inspect.getsource, shared)])


@pytest.mark.parametrize(('page', 'code'), blocks('bash'))
def test_commands_are_shell(page, code):
    for line in re.sub(r'\\\n\s*', ' ', code).splitlines():
        shlex.split(line, comments=True)


@pytest.mark.parametrize('page', sorted(PAGES), ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r'```.*?```', '', page.read_text(encoding='utf-8'), flags=re.S)
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if '://' not in target:
            assert (page.parent / target.split('#')[0]).exists(), f'{page.name}: {target}'
