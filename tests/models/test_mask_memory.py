import math

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from lesa_mmdet.models import mask_memory


class Detector(nn.Module):
    """What the guard looks at of mmdet's detectors."""

    def __init__(self, with_mask=True):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.roi_head = nn.Module()
        self.roi_head.with_mask = with_mask
        self.roi_head.test_cfg = nn.Module()
        self.roi_head.test_cfg.max_per_img = 100

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return 'done'


def sample(height, width):
    return DetDataSample(metainfo=dict(ori_shape=(height, width), img_path='a.tif'))


@pytest.fixture
def four_gib(monkeypatch):
    monkeypatch.setattr(mask_memory, 'free_memory', lambda device: 4 * 2**30)


def test_masks_that_do_not_fit_are_refused(four_gib):
    detector = Detector()
    handle = mask_memory.guard_masks(detector)
    images = [sample(600, 800), sample(12_000, 15_000)]
    with pytest.raises(
        MemoryError, match=r'a\.tif is 15000 x 12000: .* up to 20\.8 GiB .* 4\.0 GiB'
    ):
        detector(None, images, mode='predict')
    assert detector(None, images[:1], mode='predict') == 'done'
    assert detector(None, images, mode='loss') == 'done'  # a training pastes none
    assert detector(None) == 'done'
    handle.remove()
    assert detector(None, images, mode='predict') == 'done'


def test_detectors_of_boxes_and_other_models_take_any_image(four_gib):
    for model in (Detector(with_mask=False), nn.Identity()):
        mask_memory.guard_masks(model)
    assert Detector(with_mask=False)(None, [sample(10**6, 10**6)], mode='predict') == 'done'


def test_free_memory_is_known_or_without_limit():
    free = mask_memory.free_memory(torch.device('cpu'))
    assert free == math.inf or 0 < free < 2**50
