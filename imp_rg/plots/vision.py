"""Several tasks from several starts: flows in one plane, exponents, accuracy, distances."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imp_rg.plots.intervals import draw_estimates, name_categories
from imp_rg.plots.style import (
    MEASURED,
    NULL_MEANINGS,
    NULL_STYLES,
    STYLE,
    WIDTH,
    legend,
    percent_ticks,
)
from imp_rg.rg.estimate import Estimate

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

FIRST, LAST = 1, 17
"""Levels between which the paper draws its flow; those outside are drawn dashed."""

MEASURES: dict[str, dict[str, Any]] = {
    "sigma": {"color": MEASURED, "marker": "o", "label": "σ"},
    "init": {**NULL_STYLES["init"], "fillstyle": "none", "label": "init null"},
    "oneshot": {**NULL_STYLES["oneshot"], "fillstyle": "none", "label": "oneshot null"},
    "excess_init": {"color": "#0072B2", "marker": "D", "label": "σ − init null"},
    "excess_oneshot": {"color": "#56B4E9", "marker": "v", "label": "σ − oneshot null"},
}
"""How distances are drawn, by measure."""


@rc_context(STYLE)
def flow_of_tasks(paths: pd.DataFrame, blocks: tuple[str, str]) -> Figure:
    """Shares of two blocks against each other, all tasks in one panel, one panel a start.

    Solid between the levels of the paper's figure, dashed outside; numbers are levels.

    Args:
      paths: Columns task, init, start, source (trained, init), level, x, y.
      blocks: On the horizontal and on the vertical axis.

    References:
      Redman et al., arXiv:2110.03210, Fig. 2.
    """
    figure, axes = _panels(paths, height=3.6, share=True)
    for axis, (start, of_start) in zip(axes, paths.groupby("start", sort=False), strict=True):
        for (task, init, source), path in of_start.groupby(["task", "init", "source"], sort=False):
            style = _style(paths, of_start, str(task), str(init))
            if source == "trained":
                _draw_path(axis, path, style)
            else:
                axis.plot(path["x"], path["y"], ":", color=style["color"], linewidth=1.2,
                          label=f"{style['label']}, {source} null")  # fmt: skip
        axis.set_title(str(start))
        axis.xaxis.set_major_locator(MaxNLocator(5))
    figure.supxlabel(f"M of {blocks[0]} (share of the magnitude)", fontsize=9)
    figure.supylabel(f"M of {blocks[1]} (share of the magnitude)", fontsize=9)
    legend(figure, axes, ncols=4)
    return figure


def _draw_path(axis: Axes, path: pd.DataFrame, style: dict[str, Any]) -> None:
    x, y = (path[name].to_numpy(float) for name in ("x", "y"))
    last = min(LAST, len(x) - 1)
    axis.plot(x, y, "--", color=style["color"], linewidth=0.9)
    hollow = style | {"fillstyle": "none", "label": None}
    axis.plot(x, y, linestyle="none", markersize=4.5, **hollow)
    inside = slice(FIRST, last + 1)
    axis.plot(x[inside], y[inside], "-", markersize=4.5, linewidth=1.1, **style)
    for n in range(FIRST, last):
        start, end = ((x[n] + f * (x[n + 1] - x[n]), y[n] + f * (y[n + 1] - y[n])) for f in (0, 1))
        if np.isfinite([*start, *end]).all():
            arrow = {"arrowstyle": "->", "color": style["color"], "mutation_scale": 7}
            axis.annotate("", end, start, arrowprops=arrow)
    for n in sorted({0, FIRST, last, len(x) - 1}):
        axis.annotate(str(n), (x[n], y[n]), fontsize=7, color=style["color"],
                      xytext=(4, 4), textcoords="offset points")  # fmt: skip


@rc_context(STYLE)
def sigma_by_stage(sigma: pd.DataFrame) -> Figure:
    """Sigma of every task by block, beside its nulls and the paper's, one panel a start.

    Args:
      sigma: Rows of one window of ``sigma.csv``.
    """
    figure, axes = _panels(sigma, height=2.9, num_columns=1)
    for axis, (start, of_start) in zip(axes, sigma.groupby("start", sort=False), strict=True):
        blocks = list(dict.fromkeys(of_start["block"]))
        cells = list(of_start.groupby(["task", "init"], sort=False))
        width = 0.84 / len(cells)
        for i, ((task, init), rows) in enumerate(cells):
            rows = rows.set_index("block").reindex(blocks)
            at = np.arange(len(blocks)) - 0.42 + width * (i + 0.5)
            style = _style(sigma, of_start, str(task), str(init))
            columns = (rows[name].to_numpy(float) for name in ("sigma", "low", "high"))
            draw_estimates(axis, at, Estimate(*columns), **style)
            _draw_beside(axis, rows, at, width)
        name_categories(axis, blocks)
        axis.set_title(str(start))
        axis.set_ylabel("σ")
    legend(figure, axes, ncols=2)
    return figure


def _draw_beside(axis: Axes, rows: pd.DataFrame, at: np.ndarray, width: float) -> None:
    """Nulls on the right of each marker, the paper's value as a bar through it."""
    for shift, null in ((0.22, "init"), (0.34, "oneshot")):
        if f"sigma_{null}" in rows:
            style = {**NULL_STYLES[null], "fillstyle": "none", "markersize": 4.5}
            axis.plot(at + shift * width, rows[f"sigma_{null}"], linestyle="none",
                      label=f"{null}: {NULL_MEANINGS[null]}", **style)  # fmt: skip
    if rows["published"].notna().any():
        axis.hlines(rows["published"], at - 0.4 * width, at + 0.1 * width, color="#888888",
                    linewidth=2.2, zorder=1, label="the paper's Table 2")  # fmt: skip


@rc_context(STYLE)
def accuracy_curves(accuracy: pd.DataFrame) -> Figure:
    """Test accuracy against density with the standard deviation over seeds, one panel a task.

    Args:
      accuracy: ``accuracy.csv``.
    """
    figure, axes = _panels(accuracy, by="task", height=3.0)
    inits = list(dict.fromkeys(accuracy["init"]))
    for axis, (task, of_task) in zip(axes, accuracy.groupby("task", sort=False), strict=True):
        for init, rows in of_task.groupby("init", sort=False):
            color, marker = (x[inits.index(init) % len(x)] for x in (COLORS, MARKERS))
            percent = 100 * rows["density"].to_numpy(float)
            axis.errorbar(percent, rows["accuracy"], rows["sd"].fillna(0), marker=marker,
                          color=color, markersize=4, linewidth=1.1, capsize=2,
                          label=init)  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlim(115, 87 * of_task["density"].min())
        percent_ticks(axis.xaxis, of_task["density"].to_numpy(float))
        axis.set_title(str(task))
    figure.supxlabel("density: weights kept (%), pruning goes right", fontsize=9)
    figure.supylabel("test accuracy (%)", fontsize=9)
    legend(figure, axes, ncols=3)
    return figure


@rc_context(STYLE)
def distances_by_start(distances: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Distance of two tasks by what they start from, one row of panels a pair of tasks.

    Args:
      distances: Rows of ``distances.csv`` of one window between tasks, and the column start.
      titles: Of the panels, by block.
    """
    couples = list(distances.groupby(["task_a", "task_b"], sort=False))
    figure = Figure(figsize=(WIDTH, 0.7 + 2.7 * len(couples)), layout="constrained")
    grid = figure.subplots(len(couples), len(titles), squeeze=False)
    measures = [name for name in MEASURES if name in set(distances["measure"])]
    shifts = np.linspace(-0.3, 0.3, len(measures)) if len(measures) > 1 else [0.0]
    for row, (couple, of_couple) in zip(grid, couples, strict=True):
        starts = list(dict.fromkeys(of_couple["start"]))
        for axis, (block, title) in zip(row, titles.items(), strict=True):
            of_block = of_couple[of_couple["block"] == block]
            for measure, shift in zip(measures, shifts, strict=True):
                rows = of_block[of_block["measure"] == measure].set_index("start").reindex(starts)
                at, style = np.arange(len(starts)) + shift, MEASURES[measure]
                axis.plot(at, rows["distance"], linestyle="none", markersize=5, **style)
                axis.vlines(at, rows["low"], rows["high"], color=style["color"], linewidth=1.3)
            largest = np.nanmax([1e-3, *of_block["distance"]])
            axis.set_ylim(-0.05 * largest, 1.7 * largest)
            axis.set_xlim(-0.5, len(starts) - 0.5)
            axis.set_xticks(range(len(starts)), [x.replace(" / ", "\n") for x in starts])
            axis.tick_params(axis="x", labelsize=7)
            axis.grid(False, axis="x")
            axis.set_title(f"{' − '.join(map(str, couple))}\n{title}")
    figure.supylabel("distance of σ", fontsize=9)
    legend(figure, list(grid.ravel()))
    return figure


def _panels(
    frame: pd.DataFrame,
    *,
    height: float,
    by: str = "start",
    num_columns: int = 2,
    share: bool = False,
) -> tuple[Figure, list[Axes]]:
    """One panel a value of a column."""
    num = frame[by].nunique()
    columns = min(num_columns, num)
    rows = -(-num // columns)
    figure = Figure(figsize=(WIDTH, 0.7 + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    axes = list(grid.ravel())
    for axis in axes[num:]:
        axis.set_visible(False)
    return figure, axes[:num]


def _style(whole: pd.DataFrame, of_start: pd.DataFrame, task: str, init: str) -> dict[str, Any]:
    """Colour by task; marker by task, another one for each further init of a panel."""
    tasks = list(dict.fromkeys(whole["task"]))
    inits = list(dict.fromkeys(of_start.loc[of_start["task"] == task, "init"]))
    number = tasks.index(task)
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[(number + len(tasks) * inits.index(init)) % len(MARKERS)],
        "label": task if len(inits) == 1 else f"{task} from {init}",
    }
