"""The flow itself: two blocks against each other, shares and densities by level."""

import math

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from imp_rg.plots.style import (
    STYLE,
    WIDTH,
    percent_ticks,
    shares_by_seed,
    short,
)
from imp_rg.rg.stats import t_interval


@rc_context(STYLE)
def flow_plane(flow: pd.DataFrame, null_flow: pd.DataFrame, blocks: tuple[str, str]) -> Figure:
    """Shares of two blocks against each other, level by level, coloured by density.

    Args:
      flow: Rows of the point `trained`.
      null_flow: Null flows; `init` is drawn if it is there.
      blocks: On the horizontal and on the vertical axis.

    References:
      Redman et al., arXiv:2110.03210, Fig. 2.
    """
    figure = Figure(figsize=(WIDTH * 0.85, 4.6), layout="constrained")
    axis = figure.subplots()
    density = flow.groupby("level")["density"].first().to_numpy(float)
    x, y = (shares_by_seed(flow, block) for block in blocks)
    init = null_flow[null_flow["null"] == "init"]
    if len(init):
        path = [t_interval(shares_by_seed(init, block)).mean for block in blocks]
        axis.plot(*path, ":s", color="#E69F00", markersize=3, fillstyle="none", label="init null")
    norm = _log_norm(100 * density)
    for seed, marker in zip(range(len(x)), "osD^v<>ph" * len(x), strict=False):
        axis.plot(x[seed], y[seed], color="#999999", linewidth=0.8)
        _arrows(axis, x[seed], y[seed])
        dots = axis.scatter(
            x[seed], y[seed], c=density * 100, cmap="cividis", norm=norm, marker=marker,
            s=34, edgecolor="black", linewidth=0.5, zorder=3,
        )  # fmt: skip
        axis.plot([], [], marker, color="#999999", markeredgecolor="black", label=f"seed {seed}")
    bar = figure.colorbar(dots, ax=axis, label="density: weights kept (%)")
    percent_ticks(bar.ax.yaxis, density)
    axis.set_xlabel(f"M of {blocks[0]} (share of the magnitude)")
    axis.set_ylabel(f"M of {blocks[1]} (share of the magnitude)")
    figure.legend(loc="outside upper center", ncols=5)
    return figure


def _arrows(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """An arrow head in the middle of every step."""
    for n in range(len(x) - 1):
        step = np.array([x[n + 1] - x[n], y[n + 1] - y[n]])
        if np.isfinite(step).all():
            start, end = (tuple(np.array([x[n], y[n]]) + f * step) for f in (0.45, 0.6))
            axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#666666"})


@rc_context(STYLE)
def density_map(flow: pd.DataFrame, blocks: list[str]) -> Figure:
    """Kept fraction of every block at every level, mean over seeds.

    Args:
      flow: Rows of the point `trained`.
      blocks: Which blocks, in order.
    """
    table = flow.pivot_table(index="block", columns="level", values="block_density")
    percent = 100 * table.loc[blocks].to_numpy(float)
    num_blocks, num_levels = percent.shape
    figure = Figure(figsize=(WIDTH, 1.5 + 0.27 * num_blocks), layout="constrained")
    axis = figure.subplots()
    positive = percent[percent > 0]
    norm = _log_norm(positive)
    mesh = axis.pcolormesh(
        np.ma.masked_less_equal(percent, 0), cmap="cividis", norm=norm, edgecolor="white"
    )
    if num_levels <= 20:
        middle = math.sqrt(positive.min() * 100)
        for (row, column), value in np.ndenumerate(percent):
            color = "white" if 0 < value < middle else "black"
            axis.text(column + 0.5, row + 0.5, short(value), color=color, fontsize=6.5,
                      ha="center", va="center")  # fmt: skip
    axis.grid(False)
    axis.set_yticks(np.arange(num_blocks) + 0.5, blocks)
    every = math.ceil(num_levels / 20)
    axis.set_xticks(np.arange(0, num_levels, every) + 0.5, table.columns[::every])
    axis.invert_yaxis()
    axis.set_xlabel("level (prunings done)")
    bar = figure.colorbar(mesh, ax=axis, label="block density: weights kept (%)")
    percent_ticks(bar.ax.yaxis, positive / 100)
    return figure


def _log_norm(percent: np.ndarray) -> LogNorm:
    """Colours from the smallest value to 100 %, never an empty range."""
    return LogNorm(min(percent.min(), 99), 100)
