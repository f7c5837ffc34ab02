"""Learning rates of whole trainings, step by step, against the released recipes."""

import pytest
import torch

from helpers.configs import RELEASED, load
from helpers.training import replay_schedule

RATES = {'8xb1': 0.01, '4xb1': 0.005}  # GPUs with one image each
SCHEDULES = {'1x': (12, 8, 11), '20e': (20, 16, 19)}  # epochs, and after which the rate falls
WARM_UP = 500
EPOCH = 70  # iterations, here: the warm-up ends before the rate falls


@pytest.mark.parametrize('name', RELEASED)
def test_schedule_is_the_released_one(name):
    gpus = next(key for key in RATES if f'_{key}-' in name or f'-{key}-' in name)
    schedule = next(key for key in SCHEDULES if f'-{key}_' in name)
    epochs, first, second = SCHEDULES[schedule]
    # mmdet trains RetinaNet at half the rate.
    rate = RATES[gpus] * (0.5 if name.startswith('retinanet') else 1)
    expected = torch.full((epochs, EPOCH), rate)
    expected[first:] *= 0.1
    expected[second:] *= 0.1
    expected.flatten()[:WARM_UP] *= torch.linspace(0.001, 1, WARM_UP)
    torch.testing.assert_close(replay_schedule(load(name), EPOCH), expected)


def test_schedule_of_the_demo():
    rates = replay_schedule(load('mask-rcnn_lesa-r50-narrow_fpn_1xb8-8e_shapes-160'), 600)
    assert len(rates) == 8
    assert rates[0, 0] == pytest.approx(0.01 * 0.002)
    assert rates.max() == pytest.approx(0.002, rel=0.02)
    assert (rates.flatten()[50:].diff() <= 0).all() and rates[-1, -1] < 1e-6
