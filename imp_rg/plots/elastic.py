"""Networks of several depths: exponents by block, their spread, tickets moved between depths."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imp_rg.plots.style import (
    FIT,
    MEASURED,
    NULL_MEANINGS,
    NULL_STYLES,
    STYLE,
    WIDTH,
    legend,
)

LEVEL_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")

SD_STYLES = {
    "sigma": ("σ", MEASURED, "o"),
    "excess_init": ("σ − init null", NULL_STYLES["init"]["color"], "s"),
    "excess_oneshot": ("σ − oneshot null", NULL_STYLES["oneshot"]["color"], "^"),
}


@rc_context(STYLE)
def sigma_by_block(sigma: pd.DataFrame, *, ci_level: float = 0.95) -> Figure:
    """Exponents of the normal blocks, one row of panels a depth, one column a stage.

    Args:
      sigma: ``sigma.csv`` of one range of levels.
      ci_level: Coverage of the intervals.
    """
    depths, stages = sorted(sigma["depth"].unique()), sorted(sigma["stage"].unique())
    figure = Figure(figsize=(WIDTH, 0.8 + 1.6 * len(depths)), layout="constrained")
    axes = figure.subplots(len(depths), len(stages), sharey=True, squeeze=False)
    for (row, column), axis in np.ndenumerate(axes):
        is_shown = (sigma["depth"] == depths[row]) & (sigma["stage"] == stages[column])
        _draw_blocks(axis, sigma[is_shown])
        if column == 0:
            axis.set_ylabel(f"ResNet-{depths[row]}")
        if row == 0:
            axis.set_title(stages[column])
    figure.supxlabel("normal block, in order of depth", fontsize=9)
    figure.supylabel(f"σ ({100 * ci_level:g} % interval over seeds)", fontsize=9)
    legend(figure, list(axes.flat), ncols=2)
    return figure


def _draw_blocks(axis: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(1, len(rows) + 1)
    shifts = {"init": 0.15, "oneshot": 0.25, "gaussian": 0.35}
    for null, shift in shifts.items():
        style: dict[str, Any] = NULL_STYLES[null] | {"linestyle": "", "markersize": 4}
        label = f"null: {NULL_MEANINGS[null]}"
        axis.plot(places + shift, rows[f"sigma_{null}"], label=label, **style)
    axis.vlines(places, rows["sigma_low"], rows["sigma_high"], color=MEASURED, linewidth=1.4)
    axis.plot(places, rows["sigma"], "o", color=MEASURED, markersize=4.5, label="measured")
    axis.plot(places - 0.2, rows["paper"], "o", color=FIT, markersize=5, fillstyle="none",
              label="the paper, CIFAR-10")  # fmt: skip
    axis.axhline(0, color="black", linewidth=0.8)
    axis.grid(False, axis="x")
    axis.set_xticks(places)
    axis.set_xlim(0.4, len(rows) + 0.6)


@rc_context(STYLE)
def spread_by_depth(spread: pd.DataFrame, *, ci_level: float = 0.95) -> Figure:
    """Standard deviation of sigma over the normal blocks of a stage, raw and excess, by depth.

    Args:
      spread: ``spread.csv`` of one range of levels.
      ci_level: Coverage of the intervals.
    """
    stages, depths = list(dict.fromkeys(spread["stage"])), sorted(spread["depth"].unique())
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    shifts = np.linspace(-0.2, 0.2, len(SD_STYLES))
    for axis, stage in zip(axes, stages, strict=True):
        of_stage = spread[spread["stage"] == stage].set_index("depth")
        for shift, (quantity, (label, color, marker)) in zip(
            shifts, SD_STYLES.items(), strict=True
        ):
            rows = of_stage[of_stage["quantity"] == quantity].loc[depths]
            places = np.arange(len(depths)) + shift
            axis.vlines(places, rows["sd_low"], rows["sd_high"], color=color, linewidth=1.4)
            axis.plot(
                places,
                rows["sd"],
                linestyle="",
                marker=marker,
                color=color,
                markersize=4.5,
                label=label,
            )
        paper = of_stage[of_stage["quantity"] == "sigma"].loc[depths, "paper_sd"]
        axis.plot(np.arange(len(depths)) - 0.3, paper, "o", color=FIT, fillstyle="none",
                  label="the paper, σ")  # fmt: skip
        axis.set_xticks(range(len(depths)), [f"{depth}" for depth in depths])
        axis.set_xlim(-0.5, len(depths) - 0.5)
        axis.set_title(stage)
        axis.grid(False, axis="x")
    shown = spread.loc[spread["quantity"].isin(SD_STYLES), ["sd", "paper_sd"]]
    top = np.nanmax(shown.to_numpy(float), initial=0)
    axes[0].set_ylim(0, 1.8 * top if top > 0 else 1)
    axes[0].set_ylabel(f"spread: sd over blocks\n({100 * ci_level:g} % interval over seeds)")
    figure.supxlabel("depth", fontsize=9)
    legend(figure, list(axes))
    return figure


@rc_context(STYLE)
def transfer_matrix(transfer: pd.DataFrame) -> Figure:
    """Points lost by a ticket of each depth at each depth, one square a level.

    Args:
      transfer: ``transfer.csv``, one map a pair of depths.
    """
    depths = sorted(set(transfer["source_depth"]) | set(transfer["target_depth"]))
    levels = sorted(transfer["level"].unique())
    size = (WIDTH, 0.7 + 0.9 * WIDTH / max(len(levels), 2))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    top = max(1.0, np.nanmax([1.0, *transfer["loss"]]))
    image = None
    for axis, level in zip(axes, levels, strict=True):
        rows = transfer[transfer["level"] == level]
        table = rows.pivot(index="source_depth", columns="target_depth", values="loss")
        table = table.reindex(index=depths, columns=depths).to_numpy(float)
        image = axis.imshow(np.ma.masked_invalid(table), cmap="cividis_r", vmin=-top / 4, vmax=top)
        for row in rows.to_dict("records"):
            place = depths.index(row["target_depth"]), depths.index(row["source_depth"])
            note = "*" if row["saturated"] else ""
            text = f"{row['loss']:+.1f}{note}" if np.isfinite(row["loss"]) else "–"
            color = "white" if row["loss"] > 0.45 * top else "black"
            axis.text(*place, text, ha="center", va="center", fontsize=7, color=color)
        axis.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        axis.set_yticks(range(len(depths)), [str(depth) for depth in depths])
        axis.set_title(f"source level {level}")
        axis.grid(False)
    axes[0].set_ylabel("depth of the source")
    figure.supxlabel("depth of the target", fontsize=9)
    if image is not None:
        label = "points lost"
        figure.colorbar(image, ax=list(axes), label=label, shrink=0.8)
    return figure


@rc_context(STYLE)
def mismatch_scatter(points: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """Points lost by moved tickets against what should foretell it, the control beside.

    Args:
      points: One row a route and level: the predictors, source_depth, target_depth, level, loss,
        loss_low, loss_high.
      panels: Column of each predictor and the label of its axis.
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    levels = sorted(points["level"].unique())
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        for i, level in enumerate(levels):
            color = LEVEL_COLORS[i % len(LEVEL_COLORS)]
            rows = points[points["level"] == level]
            axis.vlines(rows[name], rows["loss_low"], rows["loss_high"], color=color, alpha=0.25,
                        linewidth=1.0)  # fmt: skip
            is_deeper = rows["target_depth"] > rows["source_depth"]
            for part, marker, how in ((is_deeper, "^", "stretched"), (~is_deeper, "v", "squeezed")):
                axis.plot(rows.loc[part, name], rows.loc[part, "loss"], marker, color=color,
                          markersize=4.5, label=f"level {level}, {how}")  # fmt: skip
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xlabel(label, fontsize=8)
    if len(points):
        low, high = points["loss"].min(), points["loss"].max()
        axes[0].set_ylim(low - 0.3 * (high - low) - 1, high + 0.3 * (high - low) + 1)
    axes[0].set_ylabel("points lost to the target's own ticket")
    legend(figure, list(axes), ncols=4)
    return figure
