"""One small panel a block: shares with their fits, and running exponents."""

import math

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imp_rg.plots.style import (
    FIT,
    SEED,
    STYLE,
    WIDTH,
    draw_seeds,
    legend,
    rg_time,
    shares_by_seed,
    short,
)
from imp_rg.rg.stats import t_interval


@rc_context(STYLE)
def share_decay(flow: pd.DataFrame, spectrum: pd.DataFrame) -> Figure:
    """Ln M_i against RG time, one panel a block, with the slope fit and the scaling window.

    Args:
      flow: Rows of the point `trained`.
      spectrum: Rows of the estimator `slope`, one per block.
    """
    figure, axes = _panels(list(spectrum["block"]))
    time = rg_time(flow)
    logs = [np.log(shares_by_seed(flow, block)) for block in spectrum["block"]]
    spans = [np.ptp(x[np.isfinite(x)]) for x in logs if np.isfinite(x).any()]
    half = 0.55 * max(spans, default=1.0)
    for axis, log, row in zip(axes, logs, spectrum.to_dict("records"), strict=True):
        mean = draw_seeds(axis, time, log)
        if np.isfinite(mean).any():
            fit = mean.mean() + row["sigma"] * (time - time.mean())
            axis.plot(time, fit, "--", color=FIT, linewidth=1.4, label="slope fit")
        if np.isfinite(log).any():
            centre = (np.nanmin(log) + np.nanmax(log)) / 2
            axis.set_ylim(centre - half, centre + half)
        if 0 <= row["window_first"] and row["window_last"] - row["window_first"] < len(time) - 1:
            first, last = int(row["window_first"]), int(row["window_last"])
            axis.axvspan(time[first], time[last], color="#56B4E9", alpha=0.2, linewidth=0,
                         label="scaling window (selected)")  # fmt: skip
    figure.supylabel("ln M (same span in every panel)", fontsize=9)
    return _finish_panels(figure, axes, flow)


@rc_context(STYLE)
def running_exponent(
    flow: pd.DataFrame, null_flow: pd.DataFrame, blocks: list[str], *, ci_level: float = 0.95
) -> Figure:
    """sigma_i(n) of every transition with its interval over seeds, one panel a block.

    Args:
      flow: Rows of the point `trained`.
      null_flow: Null flows; `init` is drawn if it is there.
      blocks: Which blocks, in order.
      ci_level: Coverage of the intervals.
    """
    figure, axes = _panels(blocks, sharey=True)
    time = rg_time(flow)
    middle, step = (time[1:] + time[:-1]) / 2, np.diff(time)
    is_shown = (null_flow["null"] == "init") & null_flow["level"].isin(flow["level"])
    init = null_flow[is_shown]
    low, high = np.inf, -np.inf
    for axis, block in zip(axes, blocks, strict=True):
        running = np.diff(np.log(shares_by_seed(flow, block)), axis=1) / step
        interval = t_interval(running, ci_level=ci_level)
        axis.fill_between(middle, interval.low, interval.high, color=SEED, alpha=0.2, linewidth=0,
                          label=f"{100 * ci_level:g} % interval")  # fmt: skip
        draw_seeds(axis, middle, running)
        if len(init):
            of_null = np.diff(np.log(shares_by_seed(init, block)), axis=1) / step
            style = {"color": "#E69F00", "linewidth": 1.4, "label": "init null"}
            axis.plot(middle, t_interval(of_null).mean, ":", **style)
        axis.axhline(0, color="black", linewidth=0.8)
        low, high = np.nanmin([low, *running.flat]), np.nanmax([high, *running.flat])
    if low < high:  # intervals of two seeds would flatten everything else
        axes[0].set_ylim(low - 0.3 * (high - low), high + 0.3 * (high - low))
    figure.supylabel("σ(n) = ln λ(n) / ln c(n)", fontsize=9)
    return _finish_panels(figure, axes, flow)


def _panels(blocks: list[str], *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """One small panel a block, all with the same horizontal axis."""
    num_columns = 4 if len(blocks) > 9 else 3
    num_rows = math.ceil(len(blocks) / num_columns)
    size = (WIDTH, 0.9 + num_rows * (1.5 if len(blocks) > 9 else 1.8))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(num_rows, num_columns, sharex=True, sharey=sharey, squeeze=False)
    axes = list(grid.ravel())
    for axis in axes[len(blocks) :]:
        axis.set_visible(False)
    for column in range(num_columns):  # the lowest visible panel of each column keeps its ticks
        lowest = axes[column::num_columns][(len(blocks) - 1 - column) // num_columns]
        lowest.tick_params(labelbottom=True)
    for axis, block in zip(axes, blocks, strict=False):
        axis.set_title(block, fontsize=8)
        axis.tick_params(labelsize=7)
    return figure, axes[: len(blocks)]


def _finish_panels(figure: Figure, axes: list[Axes], flow: pd.DataFrame) -> Figure:
    last = flow["density"].min()
    figure.supxlabel(
        f"RG time l = −ln density (0 is dense, {-np.log(last):.2f} is {short(100 * last)} % kept)",
        fontsize=9,
    )
    legend(figure, axes)
    return figure
