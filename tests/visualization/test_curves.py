import json

import pytest

from lesa_mmdet.visualization.curves import plot_curves, read_scalars


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


def test_curves_are_drawn(tmp_path):
    write_run(tmp_path, '1', [train(1, i, 3 / i) for i in (1, 2, 3)] + [val(1, 0.1)])
    plot_curves(tmp_path, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_nothing_logged(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing was logged'):
        read_scalars(tmp_path)
