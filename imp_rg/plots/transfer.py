"""Tickets between tasks: the matrix, what predicts it, metric against density, minimal density.

In: the tables of a transfer experiment as data frames. Tasks stand in the order given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from imp_rg.plots.style import (
    FIT,
    MEASURED,
    NULL_STYLES,
    SEED,
    STYLE,
    WIDTH,
    legend,
    percent_ticks,
    short,
)

LEVEL_STYLES = ({"marker": "o"}, {"marker": "s"}, {"marker": "^"}, {"marker": "D"}, {"marker": "v"})
HATCH: dict[str, Any] = {"facecolor": "#e0e0e0", "edgecolor": "#999999", "hatch": "////"}
CONTROL, PALE = "#666666", "#f3f3f3"


@rc_context(STYLE)
def transfer_matrix(outcomes: pd.DataFrame, tasks: Sequence[str]) -> Figure:
    """Points that each transferred ticket gains on the target's own, one panel a level.

    Saturated cells are hatched, tickets that transfer are framed; on the diagonal the metric of the
    task's own ticket in percent.

    Args:
      outcomes: ``outcomes.csv``.
      tasks: Rows (sources) and columns (targets).
    """
    levels = sorted(outcomes["level"].unique())
    num_columns = min(2, len(levels))
    num_rows = -(-len(levels) // num_columns)
    side = WIDTH / num_columns
    figure = Figure(figsize=(WIDTH, 0.6 + num_rows * (0.95 * side + 0.3)), layout="constrained")
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).ravel())
    counted = outcomes[(outcomes["quantity"] == "minus_own") & outcomes["counted"]]
    reach = max(counted["mean"].abs().max(), 1.0) if len(counted) else 1.0
    for axis, level in zip(axes, levels, strict=False):
        of_level = outcomes[outcomes["level"] == level]
        _draw_matrix(axis, of_level, tasks, reach)
        density = of_level["density"].iloc[0]
        axis.set_title(f"level {level}, {short(100 * density)} % kept")
    for axis in axes[len(levels) :]:
        axis.set_visible(False)
    _explain(axes[0], "saturated, does not count", **HATCH)
    _explain(axes[0], "transfers", facecolor="none", edgecolor="black", linewidth=1.6)
    _explain(axes[0], "own ticket (%)", facecolor=PALE)
    figure.supxlabel("target", fontsize=9)
    figure.supylabel("source of the ticket", fontsize=9)
    legend(figure, axes)
    return figure


def _draw_matrix(axis: Axes, outcomes: pd.DataFrame, tasks: Sequence[str], reach: float) -> None:
    minus_own = outcomes[outcomes["quantity"] == "minus_own"]
    own = outcomes[outcomes["quantity"] == "metric"]
    counts = _square(minus_own, tasks, "counted") == 1
    mean, metric = _square(minus_own, tasks, "mean"), _square(own, tasks, "mean")
    saturated, transfers = (_square(minus_own, tasks, x) == 1 for x in ("saturated", "transfers"))
    axis.imshow(np.ma.masked_where(~counts, mean), cmap="PuOr", vmin=-reach, vmax=reach)
    for cell in np.ndindex(mean.shape):
        row, column = cell
        if row == column:
            _patch(axis, cell, facecolor=PALE, linewidth=0)
            _write(axis, cell, short(metric.item(cell)), color=CONTROL, style="italic")
        elif saturated[cell]:
            _patch(axis, cell, linewidth=0, **HATCH)
        elif counts[cell]:
            dark = abs(mean[cell]) > 0.6 * reach
            _write(axis, cell, _points(mean.item(cell)), color="white" if dark else "black")
    for cell in zip(*np.nonzero(counts & transfers), strict=True):
        _patch(axis, cell, facecolor="none", edgecolor="black", linewidth=1.6, inset=0.05)
    _name_axes(axis, tasks)


@rc_context(STYLE)
def predictor_scatter(points: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Points lost to the target's own ticket against every distance, one panel a predictor.

    Args:
      points: A row a cell that counts and predictor: predictor, distance, loss, low, high,
        transfers.
      titles: Of the panels, by predictor, in order.
    """
    num_rows = -(-len(titles) // 3)
    figure = Figure(figsize=(WIDTH, 0.8 + 2.1 * num_rows), layout="constrained")
    axes = list(figure.subplots(num_rows, 3, sharey=True, squeeze=False).ravel())
    looks = {
        True: {"color": SEED, "marker": "o", "label": "transfers"},
        False: {"color": FIT, "marker": "x", "label": "does not"},
    }
    for axis, (predictor, title) in zip(axes, titles.items(), strict=False):
        of_predictor = points[points["predictor"] == predictor]
        for is_near, look in looks.items():
            rows = of_predictor[of_predictor["transfers"] == is_near]
            axis.vlines(rows["distance"], rows["low"], rows["high"], color="#bbbbbb", linewidth=0.7)
            axis.plot(rows["distance"], rows["loss"], linestyle="none", markersize=4, **look)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(titles) :]:
        axis.set_visible(False)
    low, high = points["loss"].min(), points["loss"].max()
    if low < high:  # intervals of two seeds would flatten everything else
        axes[0].set_ylim(low - 0.3 * (high - low), high + 0.3 * (high - low))
    figure.supxlabel("distance from source to target", fontsize=9)
    figure.supylabel("points lost to the target's own ticket", fontsize=9)
    legend(figure, axes)
    return figure


@rc_context(STYLE)
def predictor_scores(scores: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Spearman's correlation of each predictor by level, and the difference from its control.

    Args:
      scores: Rows of one version of ``predictors.csv``, losses only.
      titles: Names on the axis, by predictor, in order.
    """
    names = list(titles)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.42 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    levels = sorted(scores["level"].unique())
    shifts = np.linspace(-0.27, 0.27, len(levels)) if len(levels) > 1 else [0.0]
    for i, (level, shift) in enumerate(zip(levels, shifts, strict=True)):
        style = LEVEL_STYLES[i % len(LEVEL_STYLES)]
        of_level = scores[scores["level"] == level].set_index("predictor").reindex(names)
        y = np.arange(len(names)) + shift
        colors = np.where(of_level["role"] == "control", CONTROL, MEASURED)
        left.plot([], [], color=MEASURED, linestyle="none", label=f"level {level:g}", **style)
        left.scatter(of_level["spearman"], y, c=colors, s=22, **style)
        right.scatter(of_level["difference"], y, c=colors, s=22, **style)
        right.hlines(y, of_level["ci_low"], of_level["ci_high"], colors=colors, linewidth=1.4)
    for axis in (left, right):
        axis.axvline(0, color="black", linewidth=0.8)
        axis.grid(False, axis="y")
        for row in range(0, len(names), 2):
            axis.axhspan(row - 0.5, row + 0.5, color=PALE, linewidth=0, zorder=0)
    left.set_yticks(range(len(names)), [titles[name] for name in names])
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_title("farther loses less  ← 0 →  farther loses more")
    left.set_xlabel("Spearman's correlation of distance and loss")
    right.set_title("worse than its control  ← 0 →  better")
    right.set_xlabel("minus that of the control\n(95 % interval over tasks)")
    legend(figure, [left])
    return figure


@rc_context(STYLE)
def metric_by_density(metrics: pd.DataFrame, targets: Sequence[str]) -> Figure:
    """Test metric of each target against density: own, transferred, random, re-initialised.

    Args:
      metrics: Means over seeds: target, source, kind, level, density, test_metric. Dense rows have
        level 0.
      targets: One panel each.
    """
    num_columns = 4 if len(targets) > 6 else min(3, len(targets))
    num_rows = -(-len(targets) // num_columns)
    figure = Figure(figsize=(WIDTH, 1.0 + 1.75 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False)
    axes = list(grid.ravel())
    pruned = metrics[metrics["kind"] != "dense"]
    for axis, target, name in zip(axes, targets, short_names(targets), strict=False):
        _draw_target(axis, metrics[metrics["target"] == target], target)
        axis.set_title(name, fontsize=8)
    for axis in axes[len(targets) :]:
        axis.set_visible(False)
    density = pruned["density"].to_numpy(float)
    if len(density):
        axes[0].set_xscale("log")
        axes[0].set_xlim(115 * density.max(), 87 * density.min())
        percent_ticks(axes[0].xaxis, density)
    figure.supxlabel("density: weights kept (%), pruning goes right", fontsize=9)
    figure.supylabel("test metric (%)", fontsize=9)
    legend(figure, axes[: len(targets)])
    return figure


def _draw_target(axis: Axes, metrics: pd.DataFrame, target: str) -> None:
    is_own = metrics["source"] == target
    is_ticket = metrics["kind"] == "ticket"
    dense = metrics.loc[metrics["kind"] == "dense", "test_metric"].mean()
    axis.axhline(dense, color=MEASURED, linewidth=0.9, linestyle="--", label="dense")
    others = metrics[is_ticket & ~is_own]
    for _, rows in others.groupby("source"):
        rows = rows.sort_values("level")
        axis.plot(100 * rows["density"], rows["test_metric"], color=SEED, alpha=0.35, linewidth=0.7,
                  label="each source")  # fmt: skip
    lines = {
        "mean of sources": (others, {"color": SEED, "marker": "o", "linewidth": 1.6}),
        "own ticket": (metrics[is_ticket & is_own], {"color": MEASURED, "marker": "s"}),
        "random mask": (metrics[metrics["kind"] == "random"], NULL_STYLES["random"]),
        "re-initialised": (metrics[metrics["kind"] == "reinit"], NULL_STYLES["init"]),
    }
    for label, (rows, style) in lines.items():
        mean = rows.groupby("level")[["density", "test_metric"]].mean()
        axis.plot(100 * mean["density"], mean["test_metric"], markersize=3.5, label=label, **style)
    axis.tick_params(labelsize=7)


@rc_context(STYLE)
def minimal_density_map(minimal: pd.DataFrame, tasks: Sequence[str]) -> Figure:
    """Lowest density (%) at which each ticket still transfers.

    Hatched where none does; ≤ where the sparsest one tried does; ? where a denser one does not.

    Args:
      minimal: Rows of tickets of ``minimal_density.csv``.
      tasks: Rows (sources) and columns (targets).
    """
    figure = Figure(figsize=(WIDTH * 0.75, 0.8 + 0.5 * WIDTH * 0.95), layout="constrained")
    axis = figure.subplots()
    values = 100 * _square(minimal, tasks, "density")
    is_bound, is_monotone = (_square(minimal, tasks, x) == 1 for x in ("is_bound", "is_monotone"))
    known = np.isfinite(values)
    logs = np.log(np.where(known, values, 1))
    shown = axis.imshow(np.ma.masked_where(~known, logs), cmap="cividis")
    is_dark = np.asarray(shown.norm(logs)) < 0.5
    for cell in np.ndindex(values.shape):
        if np.isinf(values[cell]):
            _patch(axis, cell, linewidth=0, **HATCH)
        elif known[cell]:
            mark = ("≤" if is_bound[cell] else "") + short(values.item(cell))
            mark += "" if is_monotone[cell] else "?"
            _write(axis, cell, mark, color="white" if is_dark[cell] else "black")
    _explain(axis, "none transfers", **HATCH)
    axis.set_xlabel("target")
    axis.set_ylabel("source of the ticket")
    _name_axes(axis, tasks)
    legend(figure, [axis])
    return figure


def _square(
    rows: pd.DataFrame, tasks: Sequence[str], column: str
) -> Float[np.ndarray, "source target"]:
    """One column as a matrix; NaN where there is no row."""
    table = rows.pivot(index="source", columns="target", values=column).astype(float)
    return table.reindex(index=list(tasks), columns=list(tasks)).to_numpy(float)


def _patch(axis: Axes, cell: tuple[int, int], *, inset: float = 0.0, **style: Any) -> None:
    row, column = cell
    side = 1 - 2 * inset
    corner = (column - 0.5 + inset, row - 0.5 + inset)
    axis.add_patch(Rectangle(corner, side, side, **style))


def _explain(axis: Axes, label: str, **style: Any) -> None:
    """An entry of the legend, of no size in the panel."""
    axis.add_patch(Rectangle((0, 0), 0, 0, label=label, **style))


def _write(axis: Axes, cell: tuple[int, int], text: str, **style: Any) -> None:
    row, column = cell
    axis.text(column, row, text, ha="center", va="center", fontsize=6, **style)


def _points(value: float) -> str:
    """+0.4, −3.1, −12."""
    text = f"{value:+.1f}" if abs(value) < 9.95 else f"{value:+.0f}"
    return text.replace("-", "−")


def _name_axes(axis: Axes, tasks: Sequence[str]) -> None:
    names = short_names(tasks)
    axis.set_xticks(range(len(tasks)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(tasks)), names, fontsize=7)
    axis.grid(False)


def short_names(tasks: Sequence[str]) -> list[str]:
    """Names of tasks as DATA+CHANGE, without the data set where all share it."""
    parts = [task.partition("+") for task in tasks]
    is_shared = len({data for data, _, _ in parts}) == 1
    return [
        change if is_shared and change else task
        for task, (_, _, change) in zip(tasks, parts, strict=True)
    ]
