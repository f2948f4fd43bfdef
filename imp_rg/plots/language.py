"""Encoders by layer and by kind of matrix: tasks beside each other, and beside their nulls."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from imp_rg.plots.style import MEASURED, NULL_MEANINGS, NULL_STYLES, STYLE, WIDTH

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")


@rc_context(STYLE)
def sigma_by_layer(table: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Sigma of every task by layer with intervals, and below the nulls of each task.

    Args:
      table: ``table3.csv``.
      published: Columns task, block, sigma of the paper's Table 3; None draws none.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    blocks = list(dict.fromkeys(table["block"]))
    _draw_tasks(axis, table, blocks, value="sigma")
    for null in ("init", "oneshot"):
        mean = table.groupby("block", sort=False)[null].mean()
        _draw_null(axis, mean.loc[blocks].to_numpy(float), null, f"{null}: {NULL_MEANINGS[null]}")
    if published is not None:
        rows = published.groupby("block", sort=False)["sigma"].mean().reindex(blocks)
        axis.plot(rows.to_numpy(float), "_", color=MEASURED, markersize=14, zorder=1,
                  label="paper's Table 3, mean over tasks")  # fmt: skip
    _finish(axis, blocks, "σ")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


@rc_context(STYLE)
def differences_by_block(differences: pd.DataFrame, contrasts: Sequence[str]) -> Figure:
    """Differences of sigma by block with intervals over seeds, one panel a contrast.

    Args:
      differences: ``differences.csv``.
      contrasts: Which, from top to bottom.
    """
    figure = Figure(figsize=(WIDTH, 0.6 + 2.1 * len(contrasts)), layout="constrained")
    axes = list(figure.subplots(len(contrasts), 1, sharex=True, squeeze=False).ravel())
    blocks = list(dict.fromkeys(differences["block"]))
    for axis, contrast in zip(axes, contrasts, strict=True):
        _draw_tasks(axis, differences[differences["contrast"] == contrast], blocks, value="mean")
        _finish(axis, blocks, "difference of σ")
        axis.set_title(contrast)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=8)
    return figure


@rc_context(STYLE)
def kinds_map(kinds: pd.DataFrame) -> Figure:
    """Sigma by task and kind of matrix, the `init` null as the last row.

    Args:
      kinds: ``kinds.csv``.
    """
    tasks, blocks = (list(dict.fromkeys(kinds[name])) for name in ("task", "block"))
    sigma = kinds.pivot(index="task", columns="block", values="sigma").loc[tasks, blocks]
    init = kinds.groupby("block")["init"].mean().loc[blocks]
    values = np.vstack([sigma.to_numpy(float), init.to_numpy(float)])
    figure = Figure(figsize=(WIDTH, 1.3 + 0.34 * len(values)), layout="constrained")
    axis = figure.subplots()
    limit = np.nanmax(np.abs(values))
    norm = TwoSlopeNorm(0, -limit, limit)
    mesh = axis.pcolormesh(values, cmap="PuOr_r", norm=norm, edgecolor="white")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if abs(value) > 0.7 * limit else "black"
        axis.text(column + 0.5, row + 0.5, f"{value:+.3f}", color=color, fontsize=7.5,
                  ha="center", va="center")  # fmt: skip
    axis.grid(False)
    axis.set_yticks(np.arange(len(values)) + 0.5, [*tasks, "init null"])
    axis.set_xticks(np.arange(len(blocks)) + 0.5, [_short(block) for block in blocks])
    axis.invert_yaxis()
    figure.colorbar(mesh, ax=axis, label="σ")
    return figure


@rc_context(STYLE)
def likeness_beside_sigma(
    similarity: pd.DataFrame, table: pd.DataFrame, measures: dict[str, str]
) -> Figure:
    """Likeness of each layer to the one before against its abs(sigma), one panel a measure.

    Args:
      similarity: ``similarity.csv``; the pre-trained weights are drawn.
      table: ``table3.csv``.
      measures: Columns of `similarity` with their names.
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = list(figure.subplots(1, len(measures), squeeze=False).ravel())
    size = table.set_index(["task", "block"])["sigma"].abs()
    shown = similarity[similarity["weights"] == "pretrained"]
    for axis, (measure, name) in zip(axes, measures.items(), strict=True):
        for i, (task, rows) in enumerate(shown.groupby("task", sort=False)):
            places = size.reindex([(task, layer) for layer in rows["layer"]]).to_numpy(float)
            style = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
            likeness = rows[measure].to_numpy(float)
            axis.plot(likeness, places, linestyle="none", markersize=4.5, label=task, **style)
            for x, y, layer in zip(likeness, places, rows["layer"], strict=True):
                if i == 0 and np.isfinite(x) and np.isfinite(y):
                    axis.annotate(layer.removeprefix("layer"), (x, y), fontsize=7,
                                  xytext=(4, 3), textcoords="offset points")  # fmt: skip
        axis.set_xlabel(name, fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("|σ|")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=8)
    return figure


@rc_context(STYLE)
def init_sigma(table: pd.DataFrame) -> Figure:
    """Sigma of a checkpoint pruned without training, by layer and by kind.

    Args:
      table: ``sigma.csv`` of `experiments.language_init`.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (partition, rows) in zip(axes, table.groupby("partition", sort=False), strict=True):
        blocks = [_short(block) for block in rows["block"]]
        axis.plot(rows["sigma"].to_numpy(float), linestyle="none",
                  label="weights of the checkpoint", **NULL_STYLES["init"])  # fmt: skip
        axis.plot(rows["gaussian"].to_numpy(float), fillstyle="none", linestyle="none",
                  markersize=7, label="Gaussian weights", **NULL_STYLES["gaussian"])  # fmt: skip
        _finish(axis, blocks, "σ without training")
        axis.set_title(f"by {partition}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _draw_tasks(axis: Axes, rows: pd.DataFrame, blocks: list[str], *, value: str) -> None:
    """One marker with its interval a block and task, tasks side by side."""
    tasks = list(dict.fromkeys(rows["task"]))
    shifts = np.linspace(-0.28, 0.28, len(tasks)) if len(tasks) > 1 else [0.0]
    for i, (task, shift) in enumerate(zip(tasks, shifts, strict=True)):
        of_task = rows[rows["task"] == task].set_index("block").loc[blocks]
        places = np.arange(len(blocks)) + shift
        color = COLORS[i % len(COLORS)]
        axis.plot(places, of_task[value], linestyle="none", marker=MARKERS[i % len(MARKERS)],
                  color=color, markersize=4.5, label=task)  # fmt: skip
        axis.vlines(places, of_task["low"], of_task["high"], color=color, linewidth=1.3)


def _draw_null(axis: Axes, values: np.ndarray, null: str, label: str) -> None:
    """A bar across all tasks of a block."""
    places = np.arange(len(values))
    line = "-" if null == "init" else "--"
    axis.hlines(values, places - 0.42, places + 0.42, color=NULL_STYLES[null]["color"],
                linestyle=line, linewidth=1.6, zorder=1, label=label)  # fmt: skip


def _short(block: str) -> str:
    return block.replace("attention_", "attn. ")


def _finish(axis: Axes, blocks: list[str], label: str) -> None:
    axis.axhline(0, color="black", linewidth=0.8)
    axis.grid(False, axis="x")
    axis.set_xlim(-0.5, len(blocks) - 0.5)
    rotation, side = (40, "right") if sum(map(len, blocks)) > 40 else (0, "center")
    axis.set_xticks(range(len(blocks)), blocks, rotation=rotation, ha=side, fontsize=8)
    axis.set_ylabel(label)
