"""Results: exponents beside their nulls, and the test metric."""

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
    complete,
    draw_seeds,
    legend,
    percent_ticks,
)
from imp_rg.rg.stats import t_interval


@rc_context(STYLE)
def sigma_beside_nulls(
    spectrum: pd.DataFrame,
    contrasts: tuple[str, ...] = ("init", "oneshot"),
    *,
    ci_level: float = 0.95,
) -> Figure:
    """Exponent of each block with its t-interval beside the nulls; right, the excess over some.

    Args:
      spectrum: Rows of one quantity, point, denominator and estimator, one per block in order.
      contrasts: One or two nulls, whose excess is drawn where they exist.
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
    contrasts = tuple(name for name in contrasts if name in nulls)
    for shift, name in zip((-0.15, 0.2), contrasts, strict=False):
        excess = f"excess_{name}"
        columns = (excess, f"{excess}_low", f"{excess}_high")
        _whiskers(axes[1], spectrum, *columns, y + shift, **NULL_STYLES[name])
    for axis in axes:
        axis.axvline(0, color="black", linewidth=0.8)
        axis.grid(False, axis="y")
        for row in y[::2]:
            axis.axhspan(row - 0.5, row + 0.5, color="#f3f3f3", linewidth=0, zorder=0)
    for row in np.flatnonzero(spectrum["sigma"].isna()):
        axes[0].text(0.02, row - 0.15, "no exponent", fontsize=7, va="center",
                     transform=axes[0].get_yaxis_transform())  # fmt: skip
    axes[0].set_yticks(y, spectrum["block"])
    axes[0].set_ylim(len(y) - 0.5, -0.5)
    axes[0].set_title("share shrinks  ← 0 →  share grows")
    axes[0].set_xlabel(
        f"σ, paper's estimator\n(dimensionless, {100 * ci_level:g} % interval over seeds)"
    )
    axes[1].set_title(f"excess over {', '.join(contrasts)}")
    axes[1].set_xlabel(f"σ − σ of the null\n({100 * ci_level:g} % interval, paired)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _whiskers(axis: Axes, frame: pd.DataFrame, centre, low, high, y, **style) -> None:
    """Dots with intervals; a dot without whiskers where there is no interval."""
    style = {"color": MEASURED, "marker": "o", "linestyle": "none", "markersize": 5, **style}
    axis.plot(frame[centre], y, **style)
    axis.hlines(y, frame[low], frame[high], color=style["color"], linewidth=1.6)
    axis.plot(frame[low], y, "|", frame[high], y, "|", color=style["color"], markersize=6)


@rc_context(STYLE)
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
    mean = draw_seeds(axis, 100 * density, values)
    interval = t_interval(complete(values), ci_level=ci_level)
    axis.vlines(100 * density, interval.low, interval.high, color=MEASURED, linewidth=1.2,
                label=f"{100 * ci_level:g} % interval")  # fmt: skip
    axis.axhline(mean[0] - 1, color=FIT, linestyle="--", label="dense − 1 point")
    axis.set_xscale("log")
    axis.set_xlim(110, 90 * density.min())
    percent_ticks(axis.xaxis, density)
    axis.set_xlabel("density: weights kept (%), pruning goes right")
    axis.set_ylabel(name)
    legend(figure, [axis])
    return figure
