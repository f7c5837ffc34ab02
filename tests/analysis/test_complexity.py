"""FLOPs against other counts of them."""

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from torch import nn

from lesa_mmdet.analysis import complexity
from lesa_mmdet.upstream import MODELS

from helpers.configs import CONFIGS as DETECTORS
from helpers.configs import ROOT


def load_config(path):
    return Config.fromfile(path, import_custom_modules=False)


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


OWN_OPERATORS = {
    'lesa_mmdet::attend_chunked': count_attention,
    'prim::PythonOp.DeformConv2dFunction': count_deformable,
}


def count_with_mmengine(model):
    """FLOPs for an image of 128 x 128; mmengine runs the real operators."""
    with torch.no_grad():
        analysis = FlopAnalyzer(model, torch.zeros(1, 3, 128, 128)).set_op_handle(**OWN_OPERATORS)
        counted = analysis.by_operator()
    for uncounted in ('batch_norm', 'upsample_nearest2d', 'upsample_bilinear2d'):
        counted.pop(uncounted, None)
    return counted


@pytest.mark.parametrize(
    'name',
    [
        'mask-rcnn_r50-dconv-c3-c5_fpn_8xb1-20e_coco-1024',
        'mask-rcnn_sa-r50_fpn_8xb1-1x_coco-1024',
        'htc_lesa-wrn50-dconv-c3-c5_fpn_4xb1-20e_coco-1024',
    ],
)
def test_counts_are_those_of_mmengines_analysis(name):
    path = next(path for path in DETECTORS if path.stem == name)
    model = Config.fromfile(path).model
    model.backbone.update(base_channels=16, input_size=(128, 128), init_cfg=None)
    model.neck.in_channels = [64, 128, 256, 512]
    if model.backbone.get('operator', True):
        model.backbone.operator = dict(model.backbone.get('operator') or dict(type='LESA'))
        model.backbone.operator.backend = 'chunked'
    dense = Dense(MODELS.build(model).eval())
    counted = count_with_mmengine(dense)
    assert {op.partition('::')[2] for op in OWN_OPERATORS} & set(counted)
    # mmengine reads the FLOPs of an einsum from a text of six digits.
    flops = complexity.count_detector(model, (128, 128))['flops']
    assert flops == pytest.approx(sum(counted.values()), rel=1e-7)


def test_sizes_are_padded_as_the_model_pads():
    model = Config.fromfile(DETECTORS[-1]).model
    flops = [complexity.count_detector(model, size)['flops'] for size in ((97, 128), (128, 128))]
    assert flops[0] == flops[1]


class Classifier(nn.Module):
    def __init__(self, backbone, head):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(head.in_channels, head.num_classes)

    def forward(self, x):
        return self.head(self.backbone(x)[-1].mean((2, 3)))


@pytest.mark.parametrize('name', ['lesa-resnet50', 'aa-resnet50', 'sa-resnet50-decomposed'])
def test_counts_of_classifiers_are_those_of_mmengines_analysis(name):
    model = load_config(ROOT / f'configs/imagenet/{name}_4xb32_in1k.py').model
    model.backbone.update(base_channels=16, input_size=(128, 128), init_cfg=None)
    model.head.in_channels = 512
    flops = complexity.count_classifier(model)['flops']
    counted = count_with_mmengine(Classifier(MODELS.build(model.backbone), model.head).eval())
    # Flattened positions are attended to by operators of PyTorch.
    assert {'attend_chunked', 'matmul'} & set(counted)
    # Six digits of each einsum, of which these have many.
    assert flops == pytest.approx(sum(counted.values()), rel=5e-6)
