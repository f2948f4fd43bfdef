"""Several runs beside each other: the tree of classes, distances, profiles of exponents."""

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from imp_rg.plots.intervals import (
    SERIES_STYLES,
    draw_estimates,
    name_categories,
    shifts_of,
)
from imp_rg.plots.style import STYLE, WIDTH, legend
from imp_rg.rg.estimate import Estimate


@rc_context(STYLE)
def class_tree(
    names: list[str], linkage: Float[np.ndarray, "merge 4"], classes: list[int | None], unit: str
) -> Figure:
    """Dendrogram of runs; lines within a class are heavy, those between classes dashed.

    Args:
      names: Of the runs.
      linkage: In scipy's format.
      classes: Class of each run, None where undecided.
      unit: What the distance is measured in.
    """
    order: list[int] = dendrogram(linkage, no_plot=True)["leaves"]
    figure = Figure(figsize=(WIDTH, 1.1 + 0.34 * len(names)), layout="constrained")
    axis = figure.subplots()
    place = {run: float(order.index(run)) for run in range(len(names))}
    height = dict.fromkeys(place, 0.0)
    found = {run: {classes[run]} for run in place}
    for node, (*feet, top, _) in enumerate(linkage, start=len(names)):
        left, right = map(int, feet)
        place[node], height[node] = (place[left] + place[right]) / 2, top
        found[node] = found[left] | found[right]
        along = [height[left], top, top, height[right]]
        across = [place[left], place[left], place[right], place[right]]
        axis.plot(along, across, **_merge_style(found[node]))
    labels = [
        f"{names[i]}  (class {classes[i]})" if classes[i] else f"{names[i]}  (undecided)"
        for i in order
    ]
    axis.set_yticks(range(len(names)), labels)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.grid(False, axis="y")
    axis.set_xlabel(f"distance of σ at which runs merge ({unit})")
    for label, example in (("one class", {1}), ("cut: told apart", {1, 2}), ("no verdict", {None})):
        axis.plot([], [], label=label, **_merge_style(example))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _merge_style(classes: Set[int | None]) -> dict[str, Any]:
    """How to draw a merge of runs of these classes."""
    if len(classes - {None}) > 1:
        return {"color": "#D55E00", "linewidth": 1.4, "linestyle": "--"}
    if None in classes:
        return {"color": "#666666", "linewidth": 1.4, "linestyle": ":"}
    return {"color": "#000000", "linewidth": 2.2, "linestyle": "-"}


@rc_context(STYLE)
def distance_maps(pairs: pd.DataFrame, names: list[str], titles: Mapping[str, str]) -> Figure:
    """One square per measure with the distance of every pair written in it.

    Args:
      pairs: ``comparison.csv``.
      names: Of the runs.
      titles: Of the measures to draw, in order.
    """
    num, columns = len(names), min(2, len(titles))
    rows = -(-len(titles) // columns)
    height = rows * (0.9 + min(2.9, 1.2 + 0.32 * num))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (measure, title) in zip(axes, titles.items(), strict=False):
        of_measure = pairs[pairs["measure"] == measure]
        is_scaled = of_measure["distance_se"].notna().all()
        values = _square(of_measure, names, "distance_se" if is_scaled else "distance")
        axis.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0)
        top = np.nanmax([1e-12, *values.flat])
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value) and row != column:
                text = f"{value:.1f}" if is_scaled else f"{100 * value:.2g}"
                axis.text(column, row, text, ha="center", va="center",
                          fontsize=8 if num <= 8 else 6,
                          color="white" if value < top / 2 else "black")  # fmt: skip
        axis.set_xticks(range(num), names, rotation=90 if num > 3 else 0, fontsize=7)
        axis.set_yticks(range(num), names, fontsize=7)
        axis.grid(False)
        unit = "in standard errors" if is_scaled else "× 100"
        axis.set_title(f"{title}, {unit}")
    for axis in axes[len(titles) :]:
        axis.set_visible(False)
    return figure


def _square(pairs: pd.DataFrame, names: list[str], column: str) -> Float[np.ndarray, "run run"]:
    values = np.zeros((len(names), len(names)))
    for row in pairs.to_dict("records"):
        a, b = names.index(row["run_a"]), names.index(row["run_b"])
        values[a, b] = values[b, a] = row[column]
    return values


@rc_context(STYLE)
def sigma_profiles(exponents: dict[str, dict[str, list]], *, ci_level: float = 0.95) -> Figure:
    """Exponents of all runs side by side, block by block, with their intervals.

    Runs with the same blocks share a panel.

    Args:
      exponents: For each run its `block`, `sigma`, `ci_low` and `ci_high`; NaN where there is none.
      ci_level: Coverage of the intervals.
    """
    panels: dict[tuple[str, ...], list[str]] = {}
    for name, values in exponents.items():
        panels.setdefault(tuple(values["block"]), []).append(name)
    styles = dict(zip(exponents, SERIES_STYLES * len(exponents), strict=False))
    figure = Figure(figsize=(WIDTH, 0.9 + 3.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (blocks, names) in zip(axes, panels.items(), strict=True):
        places = np.arange(len(blocks))
        for name, shift in zip(names, shifts_of(len(names)), strict=True):
            columns = (exponents[name][key] for key in ("sigma", "ci_low", "ci_high"))
            sigma = Estimate(*(np.array(values, float) for values in columns))
            draw_estimates(axis, places + shift, sigma, label=name, **styles[name])
        name_categories(axis, blocks)
        axis.set_ylabel(f"σ ({100 * ci_level:g} % interval over seeds)")
    legend(figure, list(axes))
    return figure
