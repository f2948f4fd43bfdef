"""Estimates with their intervals beside nulls, by category: one way to draw them all.

places = np.arange(len(blocks))
draw_estimates(axis, places, Estimate(sigma, low, high), label="measured")
draw_null(axis, places + 0.3, sigma_init, "init")
name_categories(axis, blocks)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from imp_rg.plots.style import MEASURED, NULL_MEANINGS, NULL_STYLES
from imp_rg.rg.estimate import Estimate

SERIES_STYLES: list[dict[str, Any]] = [
    {"color": color, "marker": marker}
    for marker, first in (("o", "#000000"), ("s", "#666666"), ("^", "#000000"))
    for color in (first, "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2")
]
"""Colour and marker of series side by side, repeated after the last."""


def shifts_of(num_series: int, half_width: float = 0.32) -> list[float]:
    """Where series stand beside a place, so that none hides another."""
    return list(np.linspace(-half_width, half_width, num_series)) if num_series > 1 else [0.0]


def draw_estimates(
    axis: Axes, places: Any, estimate: Estimate, *, is_upright: bool = True, **style: Any
) -> None:
    """A dot with its interval at every place; a dot alone where there is no interval.

    Args:
      axis: Where.
      places: Along the categories.
      estimate: With arrays [place].
      is_upright: Whether values go up, else to the right.
      **style: Of the dots.
    """
    style = {"color": MEASURED, "marker": "o", "linestyle": "none", "markersize": 4.5, **style}
    values = (places, estimate.value) if is_upright else (estimate.value, places)
    axis.plot(*values, **style)
    draw_lines = axis.vlines if is_upright else axis.hlines
    draw_lines(places, estimate.low, estimate.high, color=style["color"], linewidth=1.5)


def draw_series(
    axis: Axes, series: Mapping[str, pd.DataFrame], column: str, blocks: Sequence[str]
) -> None:
    """Several series side by side at every block, with intervals; names the blocks.

    Args:
      axis: Where.
      series: By label: a row per block with the columns block, `column`, low and high.
      column: What is drawn.
      blocks: In their order.
    """
    shifts = shifts_of(len(series))
    for i, ((label, rows), shift) in enumerate(zip(series.items(), shifts, strict=True)):
        listed = rows.set_index("block").loc[list(blocks)]
        columns = (listed[name].to_numpy(float) for name in (column, "low", "high"))
        places, style = np.arange(len(blocks)) + shift, SERIES_STYLES[i % len(SERIES_STYLES)]
        draw_estimates(axis, places, Estimate(*columns), label=label, **style)
    name_categories(axis, blocks)


def draw_null(
    axis: Axes, places: Any, values: Any, null: str, *, is_upright: bool = True, **style: Any
) -> None:
    """Open markers in the colour of a null, one at every place.

    Args:
      axis: Where.
      places: Along the categories.
      values: Exponents of the null [place].
      null: Its name, a key of `NULL_STYLES`.
      is_upright: Whether values go up, else to the right.
      **style: Beyond that of the null.
    """
    label = f"{null}: {NULL_MEANINGS[null]}"
    drawn = {"fillstyle": "none", "linestyle": "none", "markersize": 5, "label": label}
    points = (places, values) if is_upright else (values, places)
    axis.plot(*points, **drawn, **NULL_STYLES[null], **style)


def name_categories(axis: Axes, names: Sequence[str], *, is_upright: bool = True) -> None:
    """Ticks, stripes and limits of the categories, and the line at zero.

    Args:
      axis: Where.
      names: Of the categories, which stand at 0, 1, 2, ...
      is_upright: Whether values go up, else to the right and the first category is on top.
    """
    places, ends = range(len(names)), (-0.5, len(names) - 0.5)
    for place in places[::2]:
        span = axis.axvspan if is_upright else axis.axhspan
        span(place - 0.5, place + 0.5, color="#f3f3f3", linewidth=0, zorder=0)
    if is_upright:
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xlim(*ends)
        axis.set_xticks(places, names, rotation=90 if len(names) > 6 else 0, fontsize=7)
        axis.grid(False, axis="x")
    else:
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_ylim(*ends[::-1])
        axis.set_yticks(places, names)
        axis.grid(False, axis="y")
