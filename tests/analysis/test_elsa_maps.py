"""Where ELSA looks: the weights of a position's neighbours."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lesa_mmdet import ELSA_Swin
from lesa_mmdet.analysis import maps as analysis
from lesa_mmdet.analysis.operators import operators
from lesa_mmdet.analysis.weights import TermWeights
from lesa_mmdet.visualization.panels import draw_maps

SIZE = (48, 64)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    backbone = ELSA_Swin(
        embed_dims=24,
        depths=(1, 1, 1, 1),
        num_heads=(2, 2, 4, 8),
        operator=dict(type='ELSA', kernel_size=5, group_width=4),
    )
    return backbone.eval()


@pytest.fixture
def recording(backbone, monkeypatch):
    """Of a random image that the model sees as it is."""
    inputs = torch.randn(1, 3, *SIZE)
    info = dict(ori_shape=SIZE, img_shape=SIZE)
    view = analysis.View.from_metainfo(info, SIZE)
    monkeypatch.setattr(analysis, '_preprocess', lambda *_: (view, dict(inputs=inputs)))
    model = SimpleNamespace(backbone=backbone)
    return analysis.Recording(model, 'image.png', operators(backbone))


def test_operators_are_called_by_their_blocks(backbone):
    assert list(operators(backbone)) == [f'stages.{stage}.blocks.0' for stage in range(3)]


@pytest.mark.parametrize('point', [(0, 0), (63, 47), (33, 21)])
@pytest.mark.parametrize('layer', ['stages.0.blocks.0', 'stages.2.blocks.0'])
def test_the_sum_of_the_drawn_weights_is_the_output(recording, backbone, point, layer):
    """With values of one and without a border the output is the sum of both parts."""
    operator = operators(backbone)[layer]
    maps = recording.at(point, layer)
    x = recording._records[layer]['input']
    with torch.no_grad():
        q, k, _ = operator.split_qkv(x)
        weights = operator.weights(q, k)[0, ..., maps.position[0], maps.position[1]].numpy()
    for head, drawn in enumerate(maps.weights):
        for index in range(25):
            row, col = maps.position[0] + index // 5 - 2, maps.position[1] + index % 5 - 2
            if 0 <= row < maps.shape[0] and 0 <= col < maps.shape[1]:
                assert drawn[row, col] == pytest.approx(weights[head, index])
                drawn[row, col] = 0
        assert not drawn.any()  # nothing outside the window
    fixed = operator.add.detach().abs().unflatten(0, (operator.num_heads, -1)).mean(1).numpy()
    row, col = maps.position
    assert maps.fixed[:, row, col] == pytest.approx(fixed[:, 2, 2])


def test_draws_the_neighbourhood_of_each_head(recording):
    maps = recording.at((20, 20), 'stages.0.blocks.0')
    figure = draw_maps(np.zeros((*SIZE, 3), np.uint8), recording.view, (20, 20), maps)
    assert isinstance(figure, Figure)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.partition(':')[0] for title in titles] == [
        'point (20, 20)', 'mean of heads', 'head 1', 'head 2', 'added in head 1', 'added in head 2',
    ]  # fmt: skip
    left, right = figure.axes[1].get_xlim()
    assert right - left == 4 * (5 + 2)  # stride 4: the window and a position on each side


def test_terms_of_elsa_have_no_weights(backbone):
    with pytest.raises(ValueError, match='stages.0.blocks.0 is ELSA, but the terms weigh'):
        TermWeights(backbone)
