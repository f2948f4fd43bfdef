"""Step sizes of IMP beside each other: exponents with their differences, overlap of masks."""

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imp_rg.plots.intervals import draw_estimates, name_categories
from imp_rg.plots.style import STYLE, WIDTH, percent_ticks
from imp_rg.rg.estimate import Estimate
from imp_rg.rg.stats import t_interval

COLORS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = tuple(zip(COLORS, MARKERS, strict=True))


@rc_context(STYLE)
def sigma_by_scale(
    sigma: pd.DataFrame, differences: pd.DataFrame, *, ci_level: float = 0.95
) -> Figure:
    """Exponents of all step sizes by block, and below their differences, with intervals.

    Args:
      sigma: ``sigma.csv``; the paper's estimator is drawn.
      differences: ``differences.csv``.
      ci_level: Coverage of the intervals.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    sigma = sigma[sigma["estimator"] == "paper"]
    differences = differences[differences["estimator"] == "paper"]
    blocks = list(dict.fromkeys(sigma["block"]))
    shown = {f"x = {x:.4g}": rows for x, rows in sigma.groupby("x", sort=False)}
    _draw(top, shown, "sigma", blocks)
    top.set_ylabel(f"σ ({100 * ci_level:g} % interval)")
    pairs = differences.groupby(["x_a", "x_b"], sort=False)
    shown = {f"{a:.4g} − {b:.4g}": rows for (a, b), rows in pairs}
    _draw(bottom, shown, "mean", blocks)
    bottom.set_ylabel("difference of σ, same seeds")
    for axis in (top, bottom):
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _draw(axis: Axes, groups: dict[str, pd.DataFrame], column: str, blocks: list[str]) -> None:
    """One marker with its interval a block and group, groups side by side."""
    shifts = np.linspace(-0.2, 0.2, len(groups))
    for (label, rows), shift, style in zip(groups.items(), shifts, STYLES, strict=False):
        values = rows.set_index("block").loc[blocks]
        columns = (values[name].to_numpy(float) for name in (column, "low", "high"))
        draw_estimates(axis, np.arange(len(blocks)) + shift, Estimate(*columns), label=label,
                       color=style[0], marker=style[1])  # fmt: skip
    name_categories(axis, blocks)


@rc_context(STYLE)
def overlap_curves(overlap: pd.DataFrame) -> Figure:
    """Overlap of masks against density: between step sizes, between seeds, and by chance.

    Args:
      overlap: ``overlap.csv``.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axis = figure.subplots()
    groups = overlap.groupby(["kind", "x_a", "x_b"], sort=False)
    for ((kind, a, b), rows), (color, marker) in zip(groups, STYLES, strict=False):
        label = f"x = {a:.4g} and {b:.4g}, same seed" if kind == "step" else "two seeds, one x"
        table = rows.pivot_table(index="density", columns=["seed_a"], values="jaccard")
        interval = t_interval(table.to_numpy(float).T)
        density = 100 * table.index.to_numpy(float)
        axis.plot(density, interval.mean, f"{marker}-", color=color, markersize=4, label=label)
        axis.fill_between(
            density, interval.low, interval.high, color=color, alpha=0.15, linewidth=0
        )
    chance = overlap[overlap["kind"] == "step"].groupby("density")["chance"].mean()
    axis.plot(100 * chance.index, chance, ":", color="#666666", linewidth=2.2, zorder=3,
              label="chance, at the densities of the tensors")  # fmt: skip
    axis.set_xscale("log")
    axis.invert_xaxis()
    percent_ticks(axis.xaxis, overlap["density"].to_numpy(float))
    axis.set_ylim(0, 1)
    axis.set_xlabel("density: weights kept (%), pruning goes right")
    axis.set_ylabel("Jaccard overlap of masks")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
