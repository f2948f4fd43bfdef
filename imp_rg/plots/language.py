"""Encoders by layer and by kind of matrix: tasks beside each other, and beside their nulls."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from imp_rg.plots.intervals import SERIES_STYLES, draw_null, draw_series, name_categories
from imp_rg.plots.style import MEASURED, STYLE, WIDTH, legend


@rc_context(STYLE)
def sigma_by_layer(table: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Sigma of every task by layer with intervals, beside its nulls.

    Args:
      table: ``table3.csv``.
      published: Columns task, block, sigma of the paper's Table 3; None draws none.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    blocks = list(dict.fromkeys(table["block"]))
    draw_series(axis, _by_task(table), "sigma", blocks)
    places = np.arange(len(blocks))
    for null in ("init", "oneshot"):
        means = table.groupby("block")[null].mean().loc[blocks]
        draw_null(axis, places, means.to_numpy(float), null)
    if published is not None:
        means = published.groupby("block")["sigma"].mean().loc[blocks]
        axis.plot(places, means.to_numpy(float), "_", color=MEASURED, markersize=14, zorder=1,
                  label="paper's Table 3, mean over tasks")  # fmt: skip
    axis.set_ylabel("σ")
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
        rows = differences[differences["contrast"] == contrast]
        draw_series(axis, _by_task(rows), "mean", blocks)
        axis.set_ylabel("difference of σ")
        axis.set_title(contrast)
    legend(figure, axes[:1], ncols=6)
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
        for i, (task, rows) in enumerate(_by_task(shown).items()):
            places = size.reindex([(task, layer) for layer in rows["layer"]]).to_numpy(float)
            likeness = rows[measure].to_numpy(float)
            axis.plot(likeness, places, linestyle="none", markersize=4.5, label=task,
                      **SERIES_STYLES[i % len(SERIES_STYLES)])  # fmt: skip
            for x, y, layer in zip(likeness, places, rows["layer"], strict=True):
                if i == 0 and np.isfinite(x) and np.isfinite(y):
                    axis.annotate(layer.removeprefix("layer"), (x, y), fontsize=7,
                                  xytext=(4, 3), textcoords="offset points")  # fmt: skip
        axis.set_xlabel(name, fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("|σ|")
    legend(figure, axes[:1], ncols=6)
    return figure


@rc_context(STYLE)
def init_sigma(table: pd.DataFrame) -> Figure:
    """Sigma of a checkpoint pruned without training, by layer and by kind.

    Args:
      table: ``sigma.csv`` of `experiments.language_init`.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = list(figure.subplots(1, 2))
    for axis, (partition, rows) in zip(axes, table.groupby("partition", sort=False), strict=True):
        draw_null(axis, range(len(rows)), rows["sigma"], "init")
        draw_null(axis, range(len(rows)), rows["gaussian"], "gaussian")
        name_categories(axis, [_short(block) for block in rows["block"]])
        axis.tick_params(axis="x", rotation=90)
        axis.set_ylabel("σ without training")
        axis.set_title(f"by {partition}")
    legend(figure, axes[:1], ncols=2)
    return figure


def _short(block: str) -> str:
    return block.replace("attention_", "attn. ")


def _by_task(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(task): of_task for task, of_task in rows.groupby("task", sort=False)}
