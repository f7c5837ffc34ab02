"""tools/plot_curves.py: several runs in one picture."""

import json

import pytest
from matplotlib.figure import Figure

from lesa_mmdet.visualization.curves import compare_curves

KEYS = ('train/accuracy/top1', 'val/accuracy/top1')


@pytest.fixture
def work_dirs(tmp_path):
    """Two runs of four epochs; the second is better by 10 each."""
    runs = {'one': tmp_path / 'one', 'two': tmp_path / 'two'}
    for offset, work_dir in zip((0, 10), runs.values(), strict=True):
        entries = []
        for epoch in range(1, 5):
            entries += [{'loss': epoch + i, 'epoch': epoch, 'step': 2 * epoch + i} for i in (0, 1)]
            values = {KEYS[0]: 20 * epoch + offset, KEYS[1]: 10 * epoch + offset}
            entries.append({**values, 'step': epoch})
        log = work_dir / '1' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text('\n'.join(map(json.dumps, entries)), encoding='utf-8')
    return runs


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, savefig = [], Figure.savefig

    def save(figure, path, **options):
        figures.append(figure)
        savefig(figure, path, **options)

    monkeypatch.setattr(Figure, 'savefig', save)
    return figures


def curves(axes):
    return {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in axes.lines}


def test_both_sides_show_all_runs(work_dirs, drawn, tmp_path):
    compare_curves(work_dirs, tmp_path / 'curves.png')
    left, right = drawn[0].axes
    assert curves(left) == curves(right)
    assert curves(left) == {
        f'{run}, {key}': (1, 2, 3, 4, *(slope * epoch + offset for epoch in range(1, 5)))
        for run, offset in (('one', 0), ('two', 10))
        for key, slope in zip(KEYS, (20, 10), strict=True)
    }
    styles = {(line.get_color(), line.get_linestyle()) for line in left.lines}
    assert styles == {('C0', '--'), ('C0', '-'), ('C1', '--'), ('C1', '-')}
    assert right.get_xlim() == (2, 4) and right.get_ylim() == (20, 90)
    assert (tmp_path / 'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_zoom_is_the_rectangle(work_dirs, drawn, tmp_path):
    compare_curves(work_dirs, tmp_path / 'curves.png', zoom=(1, 3, 40, 70))
    left, right = drawn[0].axes
    assert right.get_xlim() == (1, 3) and right.get_ylim() == (40, 70)
    (rectangle,) = left.patches
    assert rectangle.get_bbox().bounds == (1, 40, 2, 30)


def test_the_mean_of_an_epoch(work_dirs, drawn, tmp_path):
    compare_curves(work_dirs, tmp_path / 'curves.png', keys=['loss'])
    assert curves(drawn[0].axes[0])['one, loss'] == (1, 2, 3, 4, 1.5, 2.5, 3.5, 4.5)


def test_bad_input(work_dirs, tmp_path):
    with pytest.raises(ValueError, match="one has not logged 'acc', but .*'loss', 'step', 'train/"):
        compare_curves(work_dirs, tmp_path / 'curves.png', keys=['acc'])
    with pytest.raises(FileNotFoundError, match='none: nothing was logged'):
        compare_curves({'none': tmp_path / 'none'}, tmp_path / 'curves.png')
    log = work_dirs['one'] / '1' / 'vis_data' / 'scalars.json'
    log.write_text('{"loss": 1, "step": 1}\n', encoding='utf-8')
    with pytest.raises(ValueError, match='no accuracy and no AP is logged; name --keys of'):
        compare_curves(work_dirs, tmp_path / 'curves.png')


def test_tool(work_dirs, tmp_path, run):
    command = ('tools/plot_curves.py', *work_dirs.values(), '--out', tmp_path / 'curves.png')
    assert f'curves: {tmp_path}/curves.png' in run(*command, '--zoom', 1, 2, 0, 50)
    assert (tmp_path / 'curves.png').stat().st_size > 10_000
    out = run(*command, '--labels', 'LESA', succeeds=False)
    assert 'error: 2 runs need as many different names, but have LESA' in out
