"""The table of all configs: its counts against other counts, and its copies in the documents."""

import importlib.util
import json

import mmcv
import mmdet
import mmengine
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import load

from helpers.backbones import mmdet_scope  # noqa: F401
from helpers.golden import golden_cases
from helpers.paths import DEMO, ROOT
from patches.cached import cached

pytestmark = pytest.mark.slow

CONFIGS = sorted(path for path in ROOT.glob('configs/*/*.py') if path.parent.name != '_base_')
DETECTORS = [path for path in CONFIGS if path.parent.name not in ('imagenet', 'crops')]
RESULTS = {  # the paper's Tables 3 and 4
    'mask-rcnn_r50_fpn_8xb1-1x_coco-1024': [37.8, 34.5],
    'mask-rcnn_sa-r50_fpn_8xb1-1x_coco-1024': [38.5, 34.7],
    'mask-rcnn_lesa-r50_fpn_8xb1-1x_coco-1024': [40.3, 36.5, 40.5, 36.6],
    'mask-rcnn_wrn50_fpn_8xb1-1x_coco-1024': [40.9, 36.9],
    'mask-rcnn_sa-wrn50_fpn_8xb1-1x_coco-1024': [42.0, 37.6],
    'mask-rcnn_lesa-wrn50_fpn_8xb1-1x_coco-1024': [44.8, 39.9, 44.8, 40.0],
    'mask-rcnn_r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024': [43.0, 38.6],
    'mask-rcnn_lesa-r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024': [44.0, 39.2, 44.2, 39.6],
    'mask-rcnn_wrn50-dconv-c3-c5_fpn_8xb1-20e_coco-1024': [44.7, 39.8],
    'mask-rcnn_lesa-wrn50-dconv-c3-c5_fpn_8xb1-20e_coco-1024': [46.3, 40.9, 46.5, 41.2],
    'htc_wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1024': [47.4, 41.9],
    'htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1024': [48.8, 43.0, 49.0, 43.4],
    'htc_wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280': [48.5, 42.8],
    'htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1280': [50.1, 43.9, 50.5, 44.4],
}
ELSA_RESULTS = {  # its authors' model zoo, and for comparison Swin's repository
    'mask-rcnn_swin-t_fpn_8xb2-ms-crop-1x_coco': [43.7, 39.8],
    'mask-rcnn_swin-t_fpn_8xb2-ms-crop-3x_coco': [46.0, 41.6],
    'mask-rcnn_swin-s_fpn_8xb2-ms-crop-3x_coco': [48.5, 43.3],
    'mask-rcnn_elsa-swin-t_fpn_8xb2-ms-crop-1x_coco': [45.7, 41.1],
    'mask-rcnn_elsa-swin-t_fpn_8xb2-ms-crop-3x_coco': [47.5, 42.7],
    'mask-rcnn_elsa-swin-s_fpn_8xb2-ms-crop-1x_coco': [48.3, 43.0],
    'mask-rcnn_elsa-swin-s_fpn_8xb2-ms-crop-3x_coco': [49.2, 43.6],
    'cascade-mask-rcnn_elsa-swin-t_fpn_8xb2-ms-crop-1x_coco': [49.8, 43.0],
    'cascade-mask-rcnn_elsa-swin-t_fpn_8xb2-ms-crop-3x_coco': [51.0, 44.2],
    'cascade-mask-rcnn_elsa-swin-s_fpn_8xb2-ms-crop-1x_coco': [51.6, 44.4],
    'cascade-mask-rcnn_elsa-swin-s_fpn_8xb2-ms-crop-3x_coco': [52.3, 45.2],
}
ELSA_CLASSIFIERS = {  # parameters, billions of multiply-adds, and the model zoo's top-1
    'elsa-swin-tiny': (29_140_978, 4.77, 82.7),
    'elsa-swin-small': (52_874_626, 9.56, 83.5),
    'elsa-swin-base': (92_682_464, 16.66, 84.0),
}
SOURCES = (
    'arXiv 2107.05637, Table ',
    'arXiv 2112.12786, model zoo',
    'arXiv 2103.14030, repository',
)
PAPER = {  # its Tables 2 and 6: millions of parameters, WRN50 with attention without tables
    'resnet50': (25.56, 76.13, 92.86),
    'sa-resnet50': (18.06, 78.69, 94.22),
    'static-lesa-resnet50': (20.43, 79.12, 94.62),
    'lesa-resnet50': (23.78, 79.55, 94.79),
    'aa-resnet50': (25.15, 78.74, 94.23),
    'wrn50': (68.9, 78.5, 94.1),
    'sa-wrn50': (37.7, 79.7, 94.7),
    'lesa-wrn50': (60.6, 80.2, 95.1),
}


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('model_table', ROOT / 'tools/model_table.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def all_rows(tool):
    files = [ROOT / 'tools' / 'model_table.py', ROOT / 'model-index.yml']
    files += [path for path in ROOT.glob('configs/**/*') if path.suffix in ('.py', '.yml')]
    files += ROOT.glob('lesa_mmdet/**/*.py')
    versions = [package.__version__ for package in (torch, mmcv, mmengine, mmdet)]
    return cached(
        'model_table',
        files,
        versions,
        lambda: [tool.analyze(entry) for entry in tool.read_index()],
    )


@pytest.fixture(scope='module')
def rows(all_rows):
    return [row for row in all_rows if row['task'] == 'detection']


@pytest.fixture(scope='module')
def classifiers(all_rows):
    rows = [row for row in all_rows if row['config'].startswith('configs/imagenet/')]
    return {row['name'].split('_')[0]: row for row in rows}


def load_config(path):
    return Config.fromfile(path, import_custom_modules=False)


def test_index_has_every_config_once():
    index = load(ROOT / 'model-index.yml')['Import']
    assert {ROOT / path for path in index} == {path.parent / 'metafile.yml' for path in CONFIGS}
    listed = []
    for path in index:
        metafile = load(ROOT / path)
        collections = {collection['Name'] for collection in metafile['Collections']}
        for model in metafile['Models']:
            listed.append(ROOT / model['Config'])
            assert model['Name'] == listed[-1].stem
            assert model['In Collection'] in collections
            epochs = load_config(listed[-1]).train_cfg.get('max_epochs')  # or iterations
            assert model['Metadata']['Epochs'] == (epochs or 50)
            assert 'Weights' not in model  # there are none to download
            for result in model.get('Results', ()):
                assert result['Source'].startswith(SOURCES)
    assert sorted(listed) == CONFIGS


def test_results_are_the_papers(rows):
    results = {row['name']: row['paper_val'] + row['paper_test_dev'] for row in rows}
    assert {name: result for name, result in results.items() if result} == {
        **RESULTS,
        **ELSA_RESULTS,
    }


@pytest.mark.skipif(mmdet.__version__ != '3.3.0', reason='the documents count those of mmdet 3.3.0')
def test_documents_are_current(tool, all_rows):
    for path, text in tool.render_documents(all_rows).items():
        assert text.count('](') > 0
        assert path.read_text(encoding='utf-8') == text, (
            f'{path}: run python tools/model_table.py --write'
        )


def test_backbones_have_the_parameters_of_the_facts(rows):
    parameters = {row['name'].split('_')[1]: row['backbone_parameters'] for row in rows}
    classifier = 2048 * 1000 + 1000
    assert round((parameters['r50'] + classifier) / 1e6, 2) == 25.56
    assert round((parameters['wrn50'] + classifier) / 1e6, 1) == 68.9


@pytest.mark.parametrize('case', golden_cases('backbone'))
def test_backbones_have_the_parameters_of_the_authors(case, rows):
    info = case.info
    kind = f'lesa-{"wrn50" if info["wrn"] else "r50"}{"-dconv-c3-c5" if info["dcn"] else ""}'
    row = next(row for row in rows if f'_{kind}_' in row['name'] and '-1024' in row['name'])
    backbone = Config.fromfile(ROOT / row['config']).model.backbone
    with torch.device('meta'):
        of_its_size, of_the_case = (
            sum(
                parameter.numel() for parameter in MODELS.build(dict(backbone, **size)).parameters()
            )
            for size in ({}, dict(input_size=info['input_shape'][-2:]))
        )
    assert row['backbone_parameters'] == of_its_size
    assert info['num_parameters'] == of_the_case


def test_classifiers_have_the_parameters_of_the_paper(classifiers):
    for name, (paper, *_) in PAPER.items():
        row = classifiers[name]
        with_attention_in_wrn = name.endswith('-wrn50')
        parameters = row['parameters'] - with_attention_in_wrn * row['table_parameters']
        digits = 1 if 'wrn50' in name else 2
        if name == 'aa-resnet50':
            assert abs(parameters / 1e6 - paper) < 0.1
        else:
            assert round(parameters / 1e6, digits) == paper, name
        assert bool(row['table_parameters']) == (name not in ('resnet50', 'wrn50'))
    assert classifiers['lesa-resnet50']['parameters'] == 23_777_512
    assert classifiers['lesa-wrn50']['parameters'] == 61_145_896


def test_elsas_classifiers_have_the_parameters_and_operations_of_the_authors(classifiers):
    for name, (parameters, flops, _) in ELSA_CLASSIFIERS.items():
        assert classifiers[name]['parameters'] == parameters
        assert round(classifiers[name]['flops'] / 1e9, 2) == flops


def test_elsas_detectors_have_the_parameters_of_the_authors(rows):
    parameters = {row['name'].partition('_fpn')[0]: row['parameters'] / 1e6 for row in rows}
    for name, expected in (
        ('mask-rcnn_elsa-swin-t', 48.65),
        ('mask-rcnn_elsa-swin-s', 72.38),
        ('cascade-mask-rcnn_elsa-swin-t', 86.48),
        ('cascade-mask-rcnn_elsa-swin-s', 110.22),
    ):
        assert round(parameters[name], 2) == expected


def test_results_of_classifiers_are_the_papers(classifiers):
    results = {name: tuple(row['paper_top']) for name, row in classifiers.items()}
    expected = {name: tuple(results) for name, (_, *results) in PAPER.items()}
    expected.update({name: (top_1,) for name, (*_, top_1) in ELSA_CLASSIFIERS.items()})
    assert {name: result for name, result in results.items() if result} == expected


class TestCommandLine:
    def test_prints_the_configs_of_a_folder(self, run, classifiers):
        out = run('tools/model_table.py', 'configs/imagenet')
        header, rule, *lines = [line for line in out.splitlines() if line.startswith('|')]
        assert 'Parameters (M): all, without position tables' in header
        assert len(lines) == len(classifiers)
        line = next(line for line in lines if '[lesa-resnet50_4xb32_in1k]' in line)
        assert '| R50, LESA, flattened | 95 | 224 x 224 | 23.78, ' in line
        assert line.endswith('| 79.55, 94.79 |')

    def test_prints_named_configs(self, tool, run):
        config = str(DEMO.relative_to(ROOT))
        out = run('tools/model_table.py', config, '--json')
        (row,) = json.loads(out[out.index('[\n') :])
        assert row['config'] == config

    def test_unknown_config(self, run):
        out = run('tools/model_table.py', 'configs/none', succeeds=False)
        assert 'configs/none is no config of the model index and no folder of such' in out

    def test_does_not_write_a_part_of_the_tables(self, run):
        out = run('tools/model_table.py', 'configs/demo', '--write', succeeds=False)
        assert '--write and --check are for the tables of all configs: name none' in out
