import json

import pytest
from matplotlib.axes import Axes

from lesa_mmdet.visualization.curves import compare_curves, plot_curves, read_scalars


def write_run(work_dir, name, entries):
    path = work_dir / name / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, entries)), encoding='utf-8')


def train(epoch, iteration, loss):
    return {
        'loss': loss,
        'loss_cls': loss / 2,
        'epoch': epoch,
        'iter': iteration,
        'step': iteration,
    }


def val(epoch, score):
    return {'coco/bbox_mAP': score, 'coco/segm_mAP': score, 'step': epoch}


def test_a_resumed_run_takes_up_the_one_before(tmp_path):
    write_run(tmp_path, '1', [train(1, 10, 3.0), val(1, 0.1), train(2, 20, 2.0)])
    write_run(tmp_path, '2', [train(2, 20, 2.5), val(2, 0.2)])
    assert read_scalars(tmp_path) == [
        train(1, 10, 3.0),
        val(1, 0.1),
        train(2, 20, 2.5),
        val(2, 0.2),
    ]


def test_a_run_that_starts_over_replaces_the_one_before(tmp_path):
    write_run(tmp_path, '1', [train(1, 10, 3.0), val(1, 0.1)])
    write_run(tmp_path, '2', [train(1, 10, 4.0)])
    assert read_scalars(tmp_path) == [train(1, 10, 4.0)]


def train_iteration(iteration, loss):
    return {'loss': loss, 'iter': iteration, 'step': iteration}


@pytest.mark.parametrize('step', [lambda iteration: 0, lambda iteration: iteration])
def test_a_resumed_run_by_iterations_takes_up_the_one_before(step, tmp_path):
    """mmengine logs its evaluations with epoch 0, unless it is told to log the iteration."""
    first = [*map(train_iteration, (10, 20, 30), (3.0, 2.0, 1.0)), val(step(30), 0.1)]
    write_run(tmp_path, '1', [*first, train_iteration(40, 0.9)])
    write_run(tmp_path, '2', [train_iteration(40, 0.8), val(step(40), 0.2)])
    write_run(tmp_path, '3', [val(step(45), 0.3), train_iteration(50, 0.7), val(step(50), 0.4)])
    scalars = read_scalars(tmp_path)
    assert [entry['loss'] for entry in scalars if 'loss' in entry] == [3.0, 2.0, 1.0, 0.8, 0.7]
    scores = [entry['coco/bbox_mAP'] for entry in scalars if 'coco/bbox_mAP' in entry]
    assert scores == [0.1, 0.2, 0.3, 0.4]
    times = [entry['step'] for entry in scalars]
    assert times == sorted(times) and times[3] == 30


@pytest.mark.parametrize('unit', ['epoch', 'iteration'])
def test_the_axis_is_what_evaluations_are_logged_by(unit, tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(Axes, 'set', lambda self, **kwargs: named.append(kwargs.get('xlabel')))
    entry = train(1, 10, 3.0) if unit == 'epoch' else train_iteration(10, 3.0)
    write_run(tmp_path, '1', [entry, val(1, 0.1), dict(entry, iter=20, step=20), val(2, 0.2)])
    plot_curves(tmp_path, tmp_path / 'curves.png')
    compare_curves({'one': tmp_path}, tmp_path / 'both.png')
    assert named.count(unit) == (3 if unit == 'epoch' else 4)


def test_curves_are_drawn(tmp_path):
    write_run(tmp_path, '1', [train(1, i, 3 / i) for i in (1, 2, 3)] + [val(1, 0.1)])
    plot_curves(tmp_path, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_nothing_logged(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing was logged'):
        read_scalars(tmp_path)
