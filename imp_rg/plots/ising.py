"""Figures of the Ising model: blocked configurations, exponents, couplings, and the paper's Fig. 1.

In: configurations and the tables of an Ising run, and the flow of an IMP run for the right column.
Out: `matplotlib.figure.Figure`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from imp_rg.blocks import REST
from imp_rg.plots.intervals import SERIES_STYLES
from imp_rg.plots.style import FIT, MEASURED, STYLE, WIDTH, draw_seeds, legend, percent_ticks


@rc_context(STYLE)
def configurations(
    levels: Sequence[Int8[np.ndarray, "temperature row column"]],
    relative: Float[np.ndarray, " temperature"],
) -> Figure:
    """Configurations at several temperatures, one blocking more in every column.

    Args:
      levels: Spins of every level.
      relative: Temperatures over the critical one.

    References:
      Redman et al., arXiv:2110.03210, Fig. 1, left column.
    """
    figure = Figure(figsize=(WIDTH, 0.27 * WIDTH * len(relative)), layout="constrained")
    axes = figure.subplots(len(relative), len(levels), squeeze=False)
    for row, temperature in enumerate(relative):
        for column, spins in enumerate(levels):
            axis = axes[row, column]
            _draw_spins(axis, spins[row])
            if row == 0:
                size = spins.shape[-1]
                blockings = f"{column} blocking" + "s" * (column != 1)
                axis.set_title(f"{blockings}\n{size} × {size}")
        axes[row, 0].set_ylabel(_temperature_text(temperature, 1))
    return figure


@rc_context(STYLE)
def exponents(table: pd.DataFrame) -> Figure:
    """Exponents against the number of operators, one line a blocking, beside the exact value.

    Args:
      table: Rows of ``exponents.csv``.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    sectors = table.groupby("exponent", sort=False)
    for axis, (name, sector) in zip(figure.subplots(1, 2), sectors, strict=True):
        for line, (blocking, rows) in enumerate(sector.groupby("blocking")):
            sizes = f"{rows['fine_size'].iloc[0]} to {rows['coarse_size'].iloc[0]}"
            axis.errorbar(
                rows["num_operators"] + 0.06 * line, rows["value"], rows["error"],
                markersize=3.5, linewidth=1, capsize=2, **SERIES_STYLES[line],
                label=f"blocking {blocking} ({sizes})",
            )  # fmt: skip
        axis.axhline(sector["exact"].iloc[0], color="#666666", linestyle="--", label="exact")
        axis.set_xlabel("number of operators")
        axis.set_ylabel(f"${name}$")
        axis.xaxis.set_major_locator(FixedLocator(sorted(sector["num_operators"].unique())))
    legend(figure, figure.axes[:1], ncols=3)
    return figure


@rc_context(STYLE)
def coupling_flow(table: pd.DataFrame, critical: float) -> Figure:
    """Nearest and diagonal coupling against each other, and the nearest by blocking level.

    Args:
      table: Rows of ``couplings.csv``.
      critical: Critical temperature.
    """
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    plane, by_level = figure.subplots(1, 2)
    _draw_coupling_plane(plane, table, critical)
    for line, (temperature, rows) in enumerate(table.groupby("temperature")):
        nearest = rows[rows["operator"] == "nearest"]
        by_level.errorbar(
            nearest["level"], nearest["coupling"], nearest["error"], markersize=4, capsize=2,
            **SERIES_STYLES[line], label=_temperature_text(temperature, critical),
        )  # fmt: skip
    by_level.axhline(0, color="#666666", linestyle=":")
    by_level.xaxis.set_major_locator(FixedLocator(sorted(table["level"].unique())))
    by_level.set_xlabel("blocking level")
    by_level.set_ylabel("nearest-neighbour coupling")
    legend(figure, [plane], ncols=3)
    return figure


@rc_context(STYLE)
def rg_beside_imp(
    levels: Sequence[Int8[np.ndarray, "row column"]],
    binder: pd.DataFrame,
    couplings: pd.DataFrame,
    critical: float,
    flow: pd.DataFrame,
    metrics: pd.DataFrame,
) -> Figure:
    """Coarse-graining, an observable and the flow: of the Ising model, and of a pruned network.

    Args:
      levels: One critical configuration under every blocking.
      binder: Rows of ``binder.csv``.
      couplings: Rows of ``couplings.csv``.
      critical: Critical temperature.
      flow: Trained rows of an IMP run's ``flow.csv``.
      metrics: Its ``metrics.csv``.

    References:
      Redman et al., arXiv:2110.03210, Fig. 1.
    """
    figure = Figure(figsize=(WIDTH, 9.2), layout="constrained")
    rows: Any = figure.subfigures(3, 1, height_ratios=(1.15, 1, 1.2))
    titles = ("Coarse-graining", "An observable", "The flow")
    for row, title in zip(rows, titles, strict=True):
        row.suptitle(title, fontweight="bold", fontsize=9)
    left, right = rows[0].subfigures(1, 2)
    for n, (axis, spins) in enumerate(zip(left.subplots(2, 2).flat, levels, strict=False)):
        _draw_spins(axis, spins)
        axis.set_title("Ising model at T$_c$" if n == 0 else f"blocked to {spins.shape[-1]}")
    _draw_shares(right.subplots(), flow)
    law, error = rows[1].subplots(1, 2)
    _draw_magnetisation(law, binder, critical)
    _draw_error(error, metrics)
    plane, blocks = rows[2].subplots(1, 2)
    _draw_coupling_plane(plane, couplings, critical)
    plane.legend()
    _draw_block_plane(blocks, flow)
    return figure


def _temperature_text(temperature: Any, critical: float) -> str:
    """In units of the critical temperature."""
    relative = float(temperature) / critical
    return "T = T$_c$" if np.isclose(relative, 1) else f"T = {relative:g} T$_c$"


def _draw_spins(axis: Axes, spins: np.ndarray) -> None:
    axis.imshow(spins, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(True)


def _draw_coupling_plane(axis: Axes, table: pd.DataFrame, critical: float) -> None:
    """Levels as arrows from the bare coupling on."""
    for line, (temperature, rows) in enumerate(table.groupby("temperature")):
        path = rows.pivot(index="level", columns="operator", values="coupling")
        x, y = path["nearest"].to_numpy(), path["diagonal"].to_numpy()
        axis.plot(
            x, y, markersize=4, linewidth=0.8, **SERIES_STYLES[line],
            label=_temperature_text(temperature, critical),
        )  # fmt: skip
        _draw_arrows(axis, x, y, SERIES_STYLES[line]["color"])
    axis.set_xlabel("coupling of nearest neighbours")
    axis.set_ylabel("coupling of diagonal neighbours")


def _draw_arrows(axis: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """In the middle of each step of a path."""
    path = np.column_stack([x, y])
    for start, end in zip(path[:-1], path[1:], strict=True):
        if np.isfinite([start, end]).all():
            tail, head = (tuple(start + f * (end - start)) for f in (0.45, 0.6))
            axis.annotate("", head, tail, arrowprops={"arrowstyle": "->", "color": color})


def _draw_magnetisation(axis: Axes, binder: pd.DataFrame, critical: float) -> None:
    """<m^2> at the critical point against the size, with the exact exponent -1/4."""
    at = binder.iloc[(binder["temperature"] - critical).abs().argsort()]
    at = at.groupby("size").first()
    sizes, second = at.index.to_numpy(float), at["m2"].to_numpy()
    axis.errorbar(sizes, second, at["m2_error"], fmt="o", color=MEASURED, capsize=2)
    axis.plot(sizes, second[-1] * (sizes / sizes[-1]) ** -0.25, "--", color=FIT,
              label="exact slope, L$^{-1/4}$")  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    for ticks, values in ((axis.xaxis, sizes), (axis.yaxis, second)):
        ticks.set_major_locator(FixedLocator(list(values)))
        ticks.set_minor_locator(NullLocator())
        ticks.set_major_formatter(lambda value, _: f"{value:.3g}")
    axis.set_xlabel("lattice size L")
    axis.set_ylabel("squared magnetisation at T$_c$")
    axis.legend()


def _draw_shares(axis: Axes, flow: pd.DataFrame) -> None:
    """Shares of all blocks, stacked, level by level; mean over seeds."""
    order = list(dict.fromkeys(flow["block"]))
    shares = flow.pivot_table(index="level", columns="block", values="magnitude_share")[order]
    colors = [f"C{i}" if i < 10 else "#dddddd" for i in range(len(order))]
    axis.stackplot(
        shares.index.to_numpy(), *shares.to_numpy().T, labels=order, colors=colors, alpha=0.8
    )
    axis.margins(0)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title("IMP: share of the weight magnitude")
    axis.set_xlabel("level (prunings done)")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=6, reverse=True)


def _draw_error(axis: Axes, metrics: pd.DataFrame) -> None:
    """Test error against density, seeds thin and their mean bold."""
    errors = 100 - metrics.pivot(index="density", columns="seed", values="test_metric")
    errors = errors.sort_index()
    density = errors.index.to_numpy()
    draw_seeds(axis, 100 * density, errors.to_numpy().T)
    axis.set_xscale("log")
    axis.set_yscale("log")
    percent_ticks(axis.xaxis, density)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("density: weights kept (%)")
    axis.set_ylabel("test error (%)")


def _draw_block_plane(axis: Axes, flow: pd.DataFrame) -> None:
    """The block that gains most against the one that loses most."""
    listed = flow[flow["block"] != REST]
    shares = listed.pivot_table(index="level", columns="block", values="magnitude_share")
    growth = shares.iloc[-1] / shares.iloc[0]
    grows, shrinks = growth.idxmax(), growth.idxmin()
    x, y = shares[grows].to_numpy(), shares[shrinks].to_numpy()
    axis.plot(x, y, "o-", color=MEASURED, markersize=3.5, linewidth=0.8)
    _draw_arrows(axis, x, y, MEASURED)
    axis.set_xlabel(f"share of {grows} (gains most)")
    axis.set_ylabel(f"share of {shrinks} (loses most)")
