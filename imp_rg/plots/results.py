"""Results: exponents beside their nulls, and the test metric."""

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from imp_rg.plots.intervals import draw_estimates, draw_null, name_categories
from imp_rg.plots.style import (
    FIT,
    MEASURED,
    NULL_STYLES,
    STYLE,
    WIDTH,
    complete,
    draw_seeds,
    legend,
    percent_ticks,
)
from imp_rg.rg.estimate import Estimate
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
    places = np.arange(len(spectrum))
    figure = Figure(figsize=(WIDTH, 1.7 + 0.34 * len(places)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    sigma = _estimate(spectrum, "sigma", "ci_low", "ci_high")
    draw_estimates(left, places - 0.15, sigma, is_upright=False, label="measured")
    nulls = [name for name in NULL_STYLES if f"sigma_{name}" in spectrum]
    for name in nulls:
        draw_null(left, places + 0.2, spectrum[f"sigma_{name}"], name, is_upright=False)
    contrasts = tuple(name for name in contrasts if name in nulls)
    for shift, name in zip((-0.15, 0.2), contrasts, strict=False):
        excess = f"excess_{name}"
        estimate = _estimate(spectrum, excess, f"{excess}_low", f"{excess}_high")
        draw_estimates(right, places + shift, estimate, is_upright=False, **NULL_STYLES[name])
    for axis in (left, right):
        name_categories(axis, list(spectrum["block"]), is_upright=False)
    for row in np.flatnonzero(spectrum["sigma"].isna()):
        left.text(0.02, row - 0.15, "no exponent", fontsize=7, va="center",
                  transform=left.get_yaxis_transform())  # fmt: skip
    left.set_title("share shrinks  ← 0 →  share grows")
    left.set_xlabel(
        f"σ, paper's estimator\n(dimensionless, {100 * ci_level:g} % interval over seeds)"
    )
    right.set_title(f"excess over {', '.join(contrasts)}")
    right.set_xlabel(f"σ − σ of the null\n({100 * ci_level:g} % interval, paired)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _estimate(frame: pd.DataFrame, value: str, low: str, high: str) -> Estimate:
    return Estimate(*(frame[name].to_numpy(float) for name in (value, low, high)))


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
