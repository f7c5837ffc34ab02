"""The table of all configs: its counts against other counts, and its copies in the documents."""

import importlib.util
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DefaultScope
from torch import nn

from golden import golden_cases

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in ROOT.glob('configs/*/*.py') if path.parent.name != '_base_')
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


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('model_table', ROOT / 'tools/model_table.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def rows(tool):
    return [tool.analyze(entry) for entry in tool.read_index()]


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


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
            assert model['Metadata']['Epochs'] == Config.fromfile(listed[-1]).train_cfg.max_epochs
            assert 'Weights' not in model  # there are none to download
            for result in model.get('Results', ()):
                assert result['Source'].startswith('arXiv 2107.05637, Table ')
    assert sorted(listed) == CONFIGS


def test_results_are_the_papers(rows):
    results = {row['name']: row['paper_val'] + row['paper_test_dev'] for row in rows}
    assert {name: result for name, result in results.items() if result} == RESULTS


def test_documents_are_current(tool, rows):
    for path, text in tool.render_documents(rows).items():
        assert len(text.splitlines()) > 20
        assert path.read_text() == text, f'{path}: run python tools/model_table.py --write'


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


class Dense(nn.Module):
    """What the table counts of a detector."""

    def __init__(self, detector):
        super().__init__()
        self.parts = nn.ModuleList((detector.backbone, detector.neck))
        self.heads = nn.ModuleList([detector.rpn_head])
        if getattr(detector.roi_head, 'with_semantic', False):
            self.heads.append(detector.roi_head.semantic_head)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return [head(x) for head in self.heads]


def shape(value):
    return value.type().sizes()


def count_attention(inputs, outputs):
    (batch, heads, places, key_dim), (*_, value_dim) = shape(inputs[0]), shape(inputs[2])
    return batch * heads * places**2 * (key_dim + value_dim)


def count_deformable(inputs, outputs):
    """Four products a sample, and a convolution."""
    (_, out_channels, rows, cols), weight = shape(outputs[0]), shape(inputs[2])
    places = rows * cols * weight[2] * weight[3]
    return places * (4 * shape(inputs[0])[1] + out_channels * weight[1])


@pytest.mark.parametrize(
    'name',
    [
        'mask-rcnn_r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024',
        'mask-rcnn_sa-r50_fpn_8xb1-1x_coco-1024',
        'htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1024',
    ],
)
def test_counts_are_those_of_mmengines_analysis(name, tool):
    """It runs the real operators; here it counts what the table counts."""
    path = next(path for path in CONFIGS if path.stem == name)
    model = Config.fromfile(path).model
    model.backbone.update(base_channels=16, input_size=(128, 128), init_cfg=None)
    model.neck.in_channels = [64, 128, 256, 512]
    if model.backbone.get('operator', True):
        model.backbone.operator = dict(model.backbone.get('operator') or dict(type='LESA'))
        model.backbone.operator.backend = 'chunked'
    dense = Dense(MODELS.build(model).eval())
    own = {
        'prim::PythonOp._ChunkedAttention': count_attention,
        'prim::PythonOp.DeformConv2dFunction': count_deformable,
    }
    with torch.no_grad():
        analysis = FlopAnalyzer(dense, torch.zeros(1, 3, 128, 128)).set_op_handle(**own)
        counted = analysis.by_operator()
    for uncounted in ('batch_norm', 'upsample_nearest2d', 'upsample_bilinear2d'):
        counted.pop(uncounted, None)
    assert {op.replace('prim::', '') for op in own} & set(counted)
    # mmengine reads the FLOPs of an einsum from a text of six digits.
    flops = tool.count_flops(model, (128, 128))['flops']
    assert flops == pytest.approx(sum(counted.values()), rel=1e-7)


def test_sizes_are_padded_as_the_model_pads(tool):
    model = Config.fromfile(CONFIGS[-1]).model
    flops = [tool.count_flops(model, size)['flops'] for size in ((97, 128), (128, 128))]
    assert flops[0] == flops[1]
