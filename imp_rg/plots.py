"""Figures of a run: flow, exponents beside nulls, densities, accuracy.

In: the tables of a run folder as data frames. Out: `matplotlib.figure.Figure`, drawn without any
global state and legible in grey, on paper and for colour-blind eyes (Okabe and Ito's palette, and
never colour alone). House definitions, but for `flow_plane`, which follows the paper's Fig. 2.
"""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from imp_rg.io.files import write_bytes
from imp_rg.rg.stats import t_interval

WIDTH = 7.2
"""Inches; fits a printed page and, scrolled a little, a phone."""

MEASURED, FIT, SEED = "#000000", "#D55E00", "#0072B2"

NULL_STYLES = {
    "init": {"color": "#E69F00", "marker": "s"},
    "oneshot": {"color": "#009E73", "marker": "^"},
    "gaussian": {"color": "#CC79A7", "marker": "D"},
    "random": {"color": "#666666", "marker": "x"},
    "shuffled": {"color": "#56B4E9", "marker": "v"},
}
"""One colour and one marker per null, the same in all figures."""

NULL_MEANINGS = {
    "init": "rewind weights, never trained",
    "oneshot": "dense trained weights, not retrained",
    "gaussian": "Gaussian weights, closed form",
    "random": "random pruning",
    "shuffled": "masks shuffled within tensors, retrained",
}

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 150,
    "svg.hashsalt": "imp_rg",
}


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Writes NAME.png (150 dpi, 256 colours) and NAME.svg; equal bytes for equal figures.

    Returns:
      Path of the SVG.
    """
    svg, png = io.BytesIO(), io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(svg, format="svg", metadata={"Date": None})
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(png, "PNG", optimize=True, dpi=(150, 150))
    write_bytes(folder / f"{name}.png", png.getvalue())
    write_bytes(folder / f"{name}.svg", svg.getvalue())
    return folder / f"{name}.svg"


def shares_by_seed(
    flow: pd.DataFrame, block: str, column: str = "magnitude_share"
) -> Float[np.ndarray, "seed level"]:
    """One block of one point of a flow table; NaN where a seed stopped or a share vanished."""
    table = flow[flow["block"] == block].pivot(index="seed", columns="level", values=column)
    values = table.to_numpy(float)
    return np.where(values > 0, values, np.nan)


@rc_context(_STYLE)
def sigma_beside_nulls(spectrum: pd.DataFrame, *, ci_level: float = 0.95) -> Figure:
    """Exponent of each block with its t-interval beside the nulls; right, the excess over two.

    Args:
      spectrum: Rows of one quantity, point, denominator and estimator, one per block in order.
      ci_level: Coverage of the intervals.
    """
    y = np.arange(len(spectrum))
    figure = Figure(figsize=(WIDTH, 1.7 + 0.34 * len(y)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    nulls = [name for name in NULL_STYLES if f"sigma_{name}" in spectrum]
    _whiskers(axes[0], spectrum, "sigma", "ci_low", "ci_high", y - 0.15, label="measured")
    for name in nulls:
        style = {"fillstyle": "none", "markersize": 5, **NULL_STYLES[name]}
        label = f"{name}: {NULL_MEANINGS[name]}"
        axes[0].plot(spectrum[f"sigma_{name}"], y + 0.2, linestyle="none", label=label, **style)
    for shift, name in zip((-0.15, 0.2), [n for n in ("init", "oneshot") if n in nulls]):  # noqa: B905
        excess = f"excess_{name}"
        columns = (excess, f"{excess}_low", f"{excess}_high")
        _whiskers(axes[1], spectrum, *columns, y + shift, **NULL_STYLES[name])
    for axis in axes:
        axis.axvline(0, color="black", linewidth=0.8)
        axis.grid(False, axis="y")
        for row in y[::2]:
            axis.axhspan(row - 0.5, row + 0.5, color="#f3f3f3", linewidth=0, zorder=0)
    axes[0].set_yticks(y, spectrum["block"])
    axes[0].set_ylim(len(y) - 0.5, -0.5)
    axes[0].set_title("share shrinks  ← 0 →  share grows")
    axes[0].set_xlabel(f"σ, paper's estimator\n(dimensionless, {ci_level:.0%} interval over seeds)")
    axes[1].set_title("excess over init, oneshot")
    axes[1].set_xlabel(f"σ − σ of the null\n({ci_level:.0%} interval, paired)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _whiskers(axis: Axes, frame: pd.DataFrame, centre, low, high, y, **style) -> None:
    """Dots with intervals; a dot without whiskers where there is no interval."""
    style = {"color": MEASURED, "marker": "o", "linestyle": "none", "markersize": 5, **style}
    axis.plot(frame[centre], y, **style)
    axis.hlines(y, frame[low], frame[high], color=style["color"], linewidth=1.6)
    axis.plot(frame[low], y, "|", frame[high], y, "|", color=style["color"], markersize=6)


@rc_context(_STYLE)
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
        path = [np.nanmean(shares_by_seed(init, block), axis=0) for block in blocks]
        axis.plot(*path, ":s", color="#E69F00", markersize=3, fillstyle="none", label="init null")
    norm = LogNorm(max(density.min() * 100, 1e-6), 100)
    for seed, marker in zip(range(len(x)), "osD^v<>ph" * len(x), strict=False):
        axis.plot(x[seed], y[seed], color="#999999", linewidth=0.8)
        _arrows(axis, x[seed], y[seed])
        dots = axis.scatter(
            x[seed], y[seed], c=density * 100, cmap="cividis", norm=norm, marker=marker,
            s=34, edgecolor="black", linewidth=0.5, zorder=3, label=f"seed {seed}",
        )  # fmt: skip
    bar = figure.colorbar(dots, ax=axis, label="density: weights kept (%)")
    _percent_ticks(bar.ax.yaxis, density)
    axis.set_xlabel(f"M of {blocks[0]} (share of the magnitude)")
    axis.set_ylabel(f"M of {blocks[1]} (share of the magnitude)")
    figure.legend(loc="outside upper center", ncols=5)
    return figure


def _arrows(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """An arrow head in the middle of every step."""
    for n in range(len(x) - 1):
        step = np.array([x[n + 1] - x[n], y[n + 1] - y[n]])
        if np.isfinite(step).all():
            start, end = (np.array([x[n], y[n]]) + f * step for f in (0.45, 0.6))
            axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#666666"})


@rc_context(_STYLE)
def share_decay(flow: pd.DataFrame, spectrum: pd.DataFrame) -> Figure:
    """Ln M_i against RG time, one panel a block, with the slope fit and the scaling window.

    Args:
      flow: Rows of the point `trained`.
      spectrum: Rows of the estimator `slope`, one per block.
    """
    figure, axes = _panels(list(spectrum["block"]))
    time = _rg_time(flow)
    logs = [np.log(shares_by_seed(flow, block)) for block in spectrum["block"]]
    spans = [np.ptp(x[np.isfinite(x)]) for x in logs if np.isfinite(x).any()]
    half = 0.55 * max(spans, default=1.0)
    for axis, log, row in zip(axes, logs, spectrum.to_dict("records"), strict=True):
        mean = _draw_seeds(axis, time, log)
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


@rc_context(_STYLE)
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
    time = _rg_time(flow)
    middle, step = (time[1:] + time[:-1]) / 2, np.diff(time)
    init = null_flow[null_flow["null"] == "init"]
    for axis, block in zip(axes, blocks, strict=True):
        running = np.diff(np.log(shares_by_seed(flow, block)), axis=1) / step
        interval = t_interval(running, ci_level=ci_level)
        axis.fill_between(middle, interval.low, interval.high, color=SEED, alpha=0.2, linewidth=0,
                          label=f"{ci_level:.0%} interval")  # fmt: skip
        _draw_seeds(axis, middle, running)
        if len(init):
            of_null = np.diff(np.log(shares_by_seed(init, block)), axis=1) / step
            style = {"color": "#E69F00", "linewidth": 1.4, "label": "init null"}
            axis.plot(middle, t_interval(of_null).mean, ":", **style)
        axis.axhline(0, color="black", linewidth=0.8)
    figure.supylabel("σ(n) = ln λ(n) / ln c(n)", fontsize=9)
    return _finish_panels(figure, axes, flow)


@rc_context(_STYLE)
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
    norm = LogNorm(positive.min(), 100)
    mesh = axis.pcolormesh(
        np.ma.masked_less_equal(percent, 0), cmap="cividis", norm=norm, edgecolor="white"
    )
    if num_levels <= 20:
        middle = math.sqrt(positive.min() * 100)
        for (row, column), value in np.ndenumerate(percent):
            color = "white" if 0 < value < middle else "black"
            axis.text(column + 0.5, row + 0.5, _short(value), color=color, fontsize=6.5,
                      ha="center", va="center")  # fmt: skip
    axis.grid(False)
    axis.set_yticks(np.arange(num_blocks) + 0.5, blocks)
    every = math.ceil(num_levels / 20)
    axis.set_xticks(np.arange(0, num_levels, every) + 0.5, table.columns[::every])
    axis.invert_yaxis()
    axis.set_xlabel("level (prunings done)")
    bar = figure.colorbar(mesh, ax=axis, label="block density: weights kept (%)")
    _percent_ticks(bar.ax.yaxis, positive / 100)
    return figure


@rc_context(_STYLE)
def metric_curve(metrics: pd.DataFrame, name: str, *, ci_level: float = 0.95) -> Figure:
    """Test metric against density: every seed, and the mean of those that ran to the end.

    Args:
      metrics: The metrics table.
      name: Label with unit, e.g. "test accuracy (%)".
      ci_level: Coverage of the intervals.
    """
    figure = Figure(figsize=(WIDTH * 0.85, 3.8), layout="constrained")
    axis = figure.subplots()
    density = metrics.groupby("level")["density"].first().to_numpy(float)
    values = metrics.pivot(index="seed", columns="level", values="test_metric").to_numpy(float)
    mean = _draw_seeds(axis, 100 * density, values)
    interval = t_interval(_complete(values), ci_level=ci_level)
    axis.vlines(100 * density, interval.low, interval.high, color=MEASURED, linewidth=1.2,
                label=f"{ci_level:.0%} interval")  # fmt: skip
    axis.axhline(mean[0] - 1, color=FIT, linestyle="--", label="dense − 1 point")
    axis.set_xscale("log")
    axis.invert_xaxis()
    _percent_ticks(axis.xaxis, density)
    axis.set_xlabel("density: weights kept (%), pruning goes right")
    axis.set_ylabel(name)
    _legend(figure, [axis])
    return figure


def _rg_time(flow: pd.DataFrame) -> Float[np.ndarray, " level"]:
    """RG time l = -ln density of every level."""
    return -np.log(flow.groupby("level")["density"].first().to_numpy(float))


def _complete(values: Float[np.ndarray, "seed level"]) -> Float[np.ndarray, "seed level"]:
    """Blanks seeds that miss a level, so that means do not jump where a seed stops."""
    return np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan)


def _draw_seeds(axis: Axes, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Seeds thin, the mean of the complete ones bold; returns the mean."""
    for seed in values:
        axis.plot(x, seed, color=SEED, alpha=0.6, linewidth=0.8, label="seeds")
    mean = t_interval(_complete(values)).mean
    axis.plot(x, mean, "o-", color=MEASURED, linewidth=1.4, markersize=2.6, label="mean of seeds")
    return mean


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
        f"RG time l = −ln density (0 is dense, {-np.log(last):.2f} is {_short(100 * last)} % kept)",
        fontsize=9,
    )
    _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: list[Axes]) -> None:
    """One entry per label, above the panels."""
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)


def _percent_ticks(axis: Axis, density: np.ndarray) -> None:
    """Plain percent labels on a logarithmic axis, as many as fit."""
    low = 100 * density.min()
    ticks = [t for t in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if t >= low]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _short(percent: float) -> str:
    """At most three characters where three tell enough: 100, 51, 6.9, 0.92."""
    if not np.isfinite(percent):
        return ""
    return f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.2g}"
