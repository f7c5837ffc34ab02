"""Tables and figure of the study, from its results alone."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from scipy.stats import t as student
from study_models import DATA_SETS, MODELS

METRICS = {'box_ap': 'box AP', 'mask_ap': 'mask AP'}
CONFIDENCE = 0.95


def values(results: Sequence[dict], data_set: str, model: str, key: str) -> dict[int, float]:
    """Values of the runs of a model on a data set, by seed."""
    return {
        r['seed']: r[key]
        for r in results
        if (r['data_set'], r['model']) == (data_set, model) and key in r
    }


def mean_and_half(sample: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half its 95% confidence interval, Student's, which one value does not have."""
    mean = statistics.fmean(sample)
    if len(sample) < 2:
        return mean, None
    error = statistics.stdev(sample) / len(sample) ** 0.5
    return mean, error * student.ppf((1 + CONFIDENCE) / 2, len(sample) - 1)


def paired_difference(
    ours: dict[int, float], theirs: dict[int, float]
) -> tuple[float, float | None] | None:
    """Mean difference of the runs of equal seeds, and half its interval; of no seeds, none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return mean_and_half(differences) if differences else None


def tables(results: Sequence[dict]) -> str:
    """Markdown: APs and differences of each data set, then what the models cost."""
    run = {result['data_set'] for result in results}
    parts = [_accuracy(results, data_set) for data_set in DATA_SETS if data_set in run]
    if any('start_box_ap' in result for result in results):
        parts.append(_start(results))
    return '\n\n'.join([*parts, _cost(results)])


def _accuracy(results: Sequence[dict], data_set: str) -> str:
    limit = DATA_SETS[data_set].found_out
    head = ['seeds', *(['found out'] if limit else [])]
    for name in METRICS.values():
        head += [name, 'difference']
    rows = [_row(DATA_SETS[data_set].title, *head), '|---' * (1 + len(head)) + '|']
    for name, model in MODELS.items():
        of_metric = {key: values(results, data_set, name, key) for key in METRICS}
        seeds = len(of_metric['box_ap'])
        if not seeds:
            continue
        cells = [str(seeds)]
        if limit:
            cells.append(str(sum(ap > limit for ap in of_metric['box_ap'].values())))
        for key, ours in of_metric.items():
            cells.append(_points(*mean_and_half(list(ours.values()))))
            theirs = model.against and values(results, data_set, model.against, key)
            difference = theirs and paired_difference(ours, theirs)
            cells.append(_points(*difference, sign='+') if difference else '')
        rows.append(_row(model.label, *cells))
    return '\n'.join(rows)


def _start(results: Sequence[dict]) -> str:
    head = [f'{of}, {name}' for name in DATA_SETS for of in METRICS.values()]
    rows = [_row('before any step', *head), '|---' * (1 + len(head)) + '|']
    for name, model in MODELS.items():
        samples = [
            list(values(results, data_set, name, f'start_{key}').values())
            for data_set in DATA_SETS
            for key in METRICS
        ]
        if any(samples):
            cells = (_points(*mean_and_half(sample)) if sample else '' for sample in samples)
            rows.append(_row(model.label, *cells))
    return '\n'.join(rows)


def _cost(results: Sequence[dict]) -> str:
    head = ('parameters', 'step', 'memory', *(f'unary, {name}' for name in DATA_SETS))
    rows = [_row('', *head), '|---' * (1 + len(head)) + '|']
    for name, model in MODELS.items():
        runs = [r for r in results if r['model'] == name]
        if not runs:
            continue
        milliseconds = 1000 * statistics.median(r['step_seconds'] for r in runs)
        shares = (list(values(results, data_set, name, 'unary').values()) for data_set in DATA_SETS)
        rows.append(
            _row(
                model.label,
                f'{runs[0]["parameters"] / 1e6:.2f} M',
                f'{milliseconds:.0f}\N{NO-BREAK SPACE}ms',
                f'{statistics.median(r["mib"] for r in runs):.0f} MiB',
                *(f'{100 * statistics.fmean(share):.1f}%' if share else '' for share in shares),
            )
        )
    return '\n'.join(rows)


def _row(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'


def _points(value: float, half: float | None, sign: str = '') -> str:
    """AP in points with half its interval."""
    text = f'{100 * value:{sign}.1f}'
    return text if half is None else f'{text}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{100 * half:.1f}'


def plot(results: Sequence[dict], path: Path) -> None:
    """Draw the box AP of every run, and the mean of each model with its interval.

    Args:
        results (Sequence[dict]): The runs.
        path (Path): Picture to write.
    """
    names = [name for name in MODELS if any(r['model'] == name for r in results)]
    figure = Figure(figsize=(10, 1.2 + 0.35 * len(names)), layout='constrained')
    for axes, data_set in zip(
        figure.subplots(1, len(DATA_SETS), sharey=True), DATA_SETS, strict=True
    ):
        for height, name in enumerate(names):
            for key, colour, shift in (('box_ap', 'tab:blue', -0.15), ('mask_ap', 'tab:red', 0.15)):
                aps = [100 * ap for ap in values(results, data_set, name, key).values()]
                if not aps:
                    continue
                label = METRICS[key] if height == 0 else None
                axes.plot(aps, [height + shift] * len(aps), '.', color=colour, alpha=0.4)
                mean, half = mean_and_half(aps)
                style = dict(fmt='|', color=colour, capsize=3, markersize=12, label=label)
                axes.errorbar(mean, height + shift, xerr=half or 0, **style)
        axes.set(title=DATA_SETS[data_set].title, xlabel='AP (points)')
        axes.set_yticks(range(len(names)), [MODELS[name].label for name in names])
        axes.grid(alpha=0.3)
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc='outside lower center', ncols=2)
    figure.savefig(path, dpi=110)
