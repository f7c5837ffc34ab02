"""Curves of training runs: losses and metrics as they were logged."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.logging import print_log

from ..utils.errors import UserFileNotFoundError, UserValueError
from ..utils.text import readable

PICTURES = ('.png', '.jpg', '.jpeg', '.pdf', '.svg')


def read_scalars(work_dir: Path) -> list[dict]:
    """What the training in a work directory logged, over all the runs it was resumed by.

    Args:
        work_dir (Path): Work directory of mmengine; every run has a dated folder in it.

    Returns:
        list[dict]: One dict a logging step. Training: ``loss``, ``lr``, ``epoch``, ``iter``, ...;
        evaluation: ``coco/bbox_mAP``, ..., and ``step``, the epoch; in a training by iterations,
        which has no ``epoch``, the iteration.

    Raises:
        FileNotFoundError: If no run has logged anything there.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not logs:
        raise UserFileNotFoundError(f'no */vis_data/scalars.json in {work_dir}: nothing was logged')
    scalars = []
    for log in logs:
        run = _read_run(log)
        # A run takes up, or starts over, what the one before did from this time on.
        first = min((_time(entry) for entry in run), default=float('inf'))
        scalars = [entry for entry in scalars if _time(entry) < first] + run
    return scalars


def _read_run(log: Path) -> list[dict]:
    """The entries of a file, those of evaluations with the time that they are of."""
    entries = list(_read_lines(log))
    trained = [entry['iter'] for entry in entries if 'iter' in entry and 'epoch' not in entry]
    if trained:  # by iterations, to mmengine all of them are of epoch 0
        reached = trained[0]
        for entry in entries:
            reached = entry.get('iter', reached)
            entry['step'] = max(entry['step'], reached)
    return entries


def _read_lines(log: Path) -> Iterator[dict]:
    """The entries of a file; a line that a killed run has not finished is said and skipped."""
    for number, line in enumerate(log.read_text(encoding='utf-8').splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError:
            message = f'{log}: line {number} is cut off, it is skipped'
            print_log(message, logger='current', level=logging.WARNING)


def _time(entry: dict) -> int:
    """The epoch of an entry, or its iteration in a training by iterations."""
    return entry.get('epoch', entry['step'])


def _unit(scalars: Iterable[dict]) -> str:
    """What :func:`_time` counts."""
    of_training = [entry for entry in scalars if 'iter' in entry]
    is_by_epoch = not of_training or any('epoch' in entry for entry in of_training)
    return 'epoch' if is_by_epoch else 'iteration'


def plot_curves(work_dir: Path, path: Path) -> None:
    """Draw losses against iterations and COCO AP against epochs, if there are any.

    Args:
        work_dir (Path): Work directory of mmengine.
        path (Path): PNG to write.
    """
    scalars = read_scalars(work_dir)
    train = {entry['iter']: entry for entry in scalars if 'loss' in entry}
    val = {entry['step']: entry for entry in scalars if 'coco/bbox_mAP' in entry}
    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    for name in sorted(key for key in next(iter(train.values())) if 'loss' in key):
        width = 2.5 if name == 'loss' else 1
        left.plot(list(train), [train[i].get(name) for i in train], label=name, lw=width)
    left.set(xlabel='iteration', ylabel='training loss', yscale='log')
    for kind in ('bbox', 'segm'):
        values = [val[epoch].get(f'coco/{kind}_mAP') for epoch in val]
        right.plot(list(val), values, 'o-', label=f'{kind} AP')
    right.set(xlabel=_unit(scalars), ylabel='COCO AP, validation images', ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def compare_curves(
    work_dirs: Mapping[str, Path],
    path: Path,
    *,
    keys: Sequence[str] = (),
    zoom: Sequence[float] | None = None,
) -> None:
    """Draw curves of several runs against epochs, and next to them a part (paper, figure 5).

    Args:
        work_dirs (Mapping[str, Path]): Work directories of mmengine by the names for the legend.
        path (Path): Picture to write.
        keys (Sequence[str]): What to draw of what was logged; the mean of an epoch if that was more
            often. Defaults to the top-1 accuracies or box APs that the first run has.
        zoom (Sequence[float], optional): The part: first and last epoch, lowest and highest value.
            Defaults to the second half of the epochs, with all that is there.

    Raises:
        FileNotFoundError: If a run has logged nothing.
        ValueError: If a run has not logged one of the keys, or there is no default for them.
    """
    logs = {name: read_scalars(work_dir) for name, work_dir in work_dirs.items()}
    if not keys:
        logged = sorted({key for entry in next(iter(logs.values())) for key in entry})
        keys = [key for key in logged if key.endswith(('accuracy/top1', 'bbox_mAP'))]
        if not keys:
            raise UserValueError(f'no accuracy and no AP is logged; name --keys of {logged}')
    curves = {
        (name, key): _read_curve(name, scalars, key)
        for name, scalars in logs.items()
        for key in keys
    }
    if zoom is None:
        last = max(max(curve) for curve in curves.values())
        late = [v for curve in curves.values() for epoch, v in curve.items() if epoch >= last / 2]
        zoom = (last / 2, last, min(late), max(late))

    unit = _unit(entry for scalars in logs.values() for entry in scalars)
    figure = Figure(figsize=(11, 4.4), layout='constrained')
    left, right = figure.subplots(1, 2)
    colors = dict(zip(logs, cycle(f'C{i}' for i in range(10))))
    styles = dict(zip(keys, cycle(('--', '-', ':', '-.'))))
    for axes in (left, right):
        for (name, key), curve in curves.items():
            style = dict(color=colors[name], linestyle=styles[key], linewidth=1.3)
            axes.plot(list(curve), list(curve.values()), label=readable(f'{name}, {key}'), **style)
        axes.set(xlabel=unit)
        axes.grid(alpha=0.3)
    first, last, low, high = zoom
    left.add_patch(Rectangle((first, low), last - first, high - low, fill=False, color='gray'))
    right.set(xlim=(first, last), ylim=(low, high))
    figure.legend(*left.get_legend_handles_labels(), loc='outside lower center', ncols=len(logs))
    figure.savefig(path, dpi=100)


def _read_curve(name: str, scalars: list[dict], key: str) -> dict[int, float]:
    """Values by epoch or iteration; of what was logged more often the mean."""
    values = defaultdict(list)
    for entry in scalars:
        if key in entry:
            values[_time(entry)].append(entry[key])
    if not values:
        logged = sorted({key for entry in scalars for key in entry})
        raise UserValueError(f'{name} has not logged {key!r}, but {logged}')
    return {epoch: float(np.mean(of_epoch)) for epoch, of_epoch in values.items()}
