"""Step sizes of IMP beside each other: exponents with their differences, overlap of masks."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from imp_rg.plots.intervals import SERIES_STYLES, draw_series
from imp_rg.plots.style import STYLE, WIDTH, percent_ticks
from imp_rg.rg.estimate import summarise


@rc_context(STYLE)
def sigma_by_scale(sigma: pd.DataFrame, differences: pd.DataFrame, *, ci_level: float) -> Figure:
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
    draw_series(top, shown, "sigma", blocks)
    top.set_ylabel(f"σ ({100 * ci_level:g} % interval)")
    pairs = differences.groupby(["x_a", "x_b"], sort=False)
    shown = {f"{a:.4g} − {b:.4g}": rows for (a, b), rows in pairs}
    draw_series(bottom, shown, "mean", blocks)
    bottom.set_ylabel("difference of σ, same seeds")
    for axis in (top, bottom):
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@rc_context(STYLE)
def overlap_curves(overlap: pd.DataFrame) -> Figure:
    """Overlap of masks against density: between step sizes, between seeds, and by chance.

    Args:
      overlap: ``overlap.csv``.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axis = figure.subplots()
    groups = overlap.groupby(["kind", "x_a", "x_b"], sort=False)
    for ((kind, a, b), rows), style in zip(groups, SERIES_STYLES, strict=False):
        label = f"x = {a:.4g} and {b:.4g}, same seed" if kind == "step" else "two seeds, one x"
        table = rows.pivot_table(index="density", columns=["seed_a"], values="jaccard")
        mean, low, high = summarise(table.to_numpy(float).T)
        density = 100 * table.index.to_numpy(float)
        axis.plot(density, mean, markersize=4, label=label, **style)
        axis.fill_between(density, low, high, color=style["color"], alpha=0.15, linewidth=0)
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
