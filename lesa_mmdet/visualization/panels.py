"""Drawing where a position looks: its local field, its weights and its omega, over the image."""

from collections.abc import Sequence
from itertools import chain

import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..analysis.maps import PositionMaps, View

COLUMNS = 4
PANEL_WIDTH, TITLE_HEIGHT = 3.2, 0.3  # inches
# A colour that the colour map does not have, rimmed to be seen on any image.
COLOUR = '#e3007b'
RIM = [withStroke(linewidth=2.4, foreground='white')]


def draw_maps(image: np.ndarray, view: View, point: Sequence[int], maps: PositionMaps) -> Figure:
    """Draw what a position is made of over the image: local field, context, omega, each head.

    Weights are coloured from 0 to their maximum, omega from its minimum to its maximum. Of ELSA,
    the panels show the neighbourhood alone, and what is added to each head's weights follows them.

    Args:
        image (np.ndarray): Image (H, W, 3), RGB.
        view (View): How the model sees the image.
        point (Sequence[int]): Pixel (x, y) of the image.
        maps (PositionMaps): What :func:`look` gives for an operator.

    Returns:
        Figure: Panels of what there is: without a local field, omega or weights if it has none.
    """
    shape = maps.shape
    position = np.array(maps.position)[::-1] + 0.5
    # Pale and grey, so that colours tell values.
    pale = (mmcv.rgb2gray(image, keepdim=True) // 2 + 128).repeat(3, axis=-1)

    def draw_heat(axes: Axes, name: str, values: np.ndarray, low: float) -> None:
        span = f'max {values.max():.3g}' if low == 0 else f'{low:.3g} to {values.max():.3g}'
        _draw_image(axes, f'{name}: {span}', pale)
        (left, top), (right, bottom) = view.to_image(np.array([(0, 0), shape[::-1]]), shape)
        extent = (left, right, bottom, top)
        axes.imshow(values, 'viridis', alpha=0.6, vmin=low, vmax=values.max(), extent=extent)
        _draw_boxes(axes, [position], view, shape)
        if maps.fixed is not None:
            _zoom(axes, view, maps)

    of_mean = [heat for heat in heats(maps) if heat[0].startswith('mean')]
    of_heads = [heat for heat in heats(maps) if not heat[0].startswith('mean')]
    rows = 1 + -(-len(of_heads) // COLUMNS)
    panel_height = PANEL_WIDTH * image.shape[0] / image.shape[1] + TITLE_HEIGHT
    figure = Figure(figsize=(COLUMNS * PANEL_WIDTH, rows * panel_height), layout='constrained')
    first_row, other_rows = np.split(figure.subplots(rows, COLUMNS, squeeze=False), [1])
    panels = iter(first_row.flat)

    axes = _draw_image(next(panels), f'point ({point[0]}, {point[1]})', image)
    axes.plot(
        *np.array(point) + 0.5, '+', color=COLOUR, ms=14, mew=1.4, clip_on=False, path_effects=RIM
    )
    if maps.field is not None:
        axes = _draw_image(next(panels), 'local field', image)
        _draw_boxes(axes, maps.field, view, shape)
    for heat in of_mean:
        draw_heat(next(panels), *heat)
    panels = chain(other_rows.flat, panels)
    for heat in of_heads:
        draw_heat(next(panels), *heat)
    for axes in panels:
        axes.remove()
    return figure


def heats(maps: PositionMaps) -> list[tuple[str, np.ndarray, float]]:
    """What of a position can be drawn as a colour over the image.

    Returns:
        list[tuple[str, np.ndarray, float]]: Names, values (H, W), and the value of no colour: 0 of
        weights, the smallest one of omega.
    """
    found = []
    if maps.weights is not None:
        found.append(('mean of heads', maps.weights.mean(0), 0))
    if maps.omega is not None:
        found.append(('mean omega', maps.omega, maps.omega.min()))
    for name, of_heads in (('head', maps.weights), ('added in head', maps.fixed)):
        found += [
            (f'{name} {k}', w, 0) for k, w in enumerate(() if of_heads is None else of_heads, 1)
        ]
    return found


def to_boxes(centres: Sequence, view: View, map_shape: Sequence[int]) -> list[list[float]]:
    """Boxes (left, top, right, bottom) in the image of positions around points (x, y) on a map."""
    return [
        view.to_image(np.stack((centre - 0.5, centre + 0.5)), map_shape).ravel().tolist()
        for centre in centres
    ]


def _zoom(axes: Axes, view: View, maps: PositionMaps) -> None:
    """Show the neighbourhood that has weights, and one position more on each side."""
    _, rows, cols = np.nonzero(maps.weights)
    first = np.array((cols.min(), rows.min())) - 1
    last = np.array((cols.max(), rows.max())) + 2
    (left, top), (right, bottom) = view.to_image(np.stack((first, last)), maps.shape)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _draw_image(axes: Axes, title: str, image: np.ndarray) -> Axes:
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0))
    axes.set_title(title)
    axes.set_axis_off()
    axes.autoscale(False)  # what is drawn outside the image is cut off
    return axes


def _draw_boxes(axes: Axes, centres: Sequence, view: View, map_shape: Sequence[int]) -> None:
    """Outline positions around points (x, y) on a map."""
    for left, top, right, bottom in to_boxes(centres, view, map_shape):
        size = (right - left, bottom - top)
        axes.add_patch(
            Rectangle((left, top), *size, fill=False, ec=COLOUR, lw=1.2, path_effects=RIM)
        )
