"""Bars of what the terms of operators weigh."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from ..utils.text import readable


def plot_shares(shares: Mapping[str, Mapping[str, float]], path: Path, title: str = '') -> None:
    """Draw the shares as bars, a layer each.

    Args:
        shares (Mapping): As of :func:`~lesa_mmdet.analysis.weights.with_mean`.
        path (Path): PNG to write.
        title (str): Stands above.
    """
    figure = Figure(figsize=(7, 1.5 + 0.35 * len(shares)), layout='constrained')
    axes = figure.subplots()
    left = [0] * len(shares)
    for term, colour in (('unary', 'tab:orange'), ('binary', 'tab:blue')):
        percent = [100 * share[term] for share in shares.values()]
        bars = axes.barh(list(shares), percent, left=left, color=colour, label=term)
        axes.bar_label(bars, fmt='%.1f%%', label_type='center', fontsize=8)
        left = percent
    axes.axhline(len(shares) - 1.5, color='black', lw=0.8)  # the mean stands apart
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel='weight (%)')
    figure.suptitle(readable(title), fontsize=10)
    figure.legend(loc='outside lower center', ncols=2)
    figure.savefig(path, dpi=110)
