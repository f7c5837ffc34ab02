"""A training and an evaluation with ``python -OO``, and what it refuses."""

import pytest

from helpers.bad_input import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    place.data()
    return place


def test_train_and_test(place, run):
    config = place.config()
    assert 'Saving checkpoint' in run('tools/train.py', config, PYTHONOPTIMIZE='2')
    checkpoint = place / 'work' / 'epoch_1.pth'
    assert 'coco/bbox_mAP' in run('tools/test.py', config, checkpoint, PYTHONOPTIMIZE='2')


def test_a_loss_that_is_no_number(place, run):
    def diverge(cfg):
        cfg.optim_wrapper = dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=1e20), clip_grad=None
        )
        cfg.param_scheduler = None

    config = place.config(diverge)
    out = run('tools/train.py', config, PYTHONOPTIMIZE='2', succeeds=False)
    assert 'error: the loss is ' in out and 'Traceback' not in out


def test_another_number_of_classes(place, run):
    def rename(cfg):
        cfg.train_dataloader.dataset.metainfo = dict(classes=('triangle',))
        cfg.model.roi_head.bbox_head.num_classes = 5

    out = run('tools/train.py', place.config(rename), PYTHONOPTIMIZE='2', succeeds=False)
    assert 'error: ' in out and 'classes' in out and 'Traceback' not in out
