"""Collapses: curves of several sizes, or networks of several widths and depths, on one curve."""

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from imp_rg.plots.style import STYLE, WIDTH, legend, percent_ticks
from imp_rg.rg.joint_law import joint_error

COLORS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "x", "P")


@rc_context(STYLE)
def size_collapse(points: pd.DataFrame, check: pd.DataFrame, labels: tuple[str, str]) -> Figure:
    """Curves of several sizes as measured, and in the coordinates in which they fall together.

    Args:
      points: Columns x, y, y_err and size.
      check: Columns quantity (x_c and nu), found, error, quality.
      labels: Of x and y.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    raw, scaled = figure.subplots(1, 2, sharey=True)
    found = check.set_index("quantity")
    x_c, nu = found["found"]["x_c"], found["found"]["nu"]
    for (size, rows), color, marker in zip(points.groupby("size"), COLORS, MARKERS, strict=False):
        x, y, y_err = (rows[column].to_numpy(float) for column in ("x", "y", "y_err"))
        style = {"color": color, "markersize": 3.2, "elinewidth": 0.9}
        raw.errorbar(x, y, y_err, fmt=f"{marker}-", label=f"L = {size:g}", linewidth=0.8, **style)
        scaled.errorbar((x - x_c) * size ** (1 / nu), y, y_err, fmt=marker, **style)
    raw.axvline(x_c, color="#666666", linewidth=0.9, linestyle=":")
    raw.set_xlabel(labels[0])
    raw.set_ylabel(labels[1])
    scaled.set_xlabel(
        f"(x − {x_c:.5g}) L^(1/ν), ν = {nu:.3f} ± {found['error']['nu']:.2g}, "
        f"S = {found['quality']['nu']:.2f}"
    )
    figure.legend(loc="outside upper center", ncols=5)
    return figure


@rc_context(STYLE)
def network_collapse(points: pd.DataFrame, law: pd.DataFrame) -> Figure:
    """Errors of all networks against density, and against the invariant with the fitted law.

    Colour is width, marker is depth; seeds are faint, their means bold. Zero errors have no place
    on the axis.

    Args:
      points: Columns width, depth, density, m and error, one row a seed and level.
      law: Its parameters with their values; the curve of the lowest and the highest plateau (rows
        that begin with e_np) is drawn.

    References:
      Rosenfeld et al., arXiv:2006.10621, Figs. 1 and 5.
    """
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    raw, collapsed = figure.subplots(1, 2, sharey=True)
    widths, depths = (sorted(points[name].unique()) for name in ("width", "depth"))
    shown = points[points["error"] > 0]
    for (width, depth), rows in shown.groupby(["width", "depth"]):
        color = COLORS[widths.index(width) % len(COLORS)]
        marker = MARKERS[depths.index(depth) % len(MARKERS)]
        mean = rows.groupby("level")[["density", "m", "error"]].mean()
        for axis, column, unit in ((raw, "density", 100), (collapsed, "m", 1)):
            axis.plot(
                unit * rows[column], rows["error"], marker, color=color, alpha=0.2, markersize=2
            )
            axis.plot(unit * mean[column], mean["error"], marker, color=color, markersize=3.6,
                      label=f"width {width:g}, depth {depth:g}")  # fmt: skip
    fine = np.geomspace(points["m"].min(), points["m"].max(), 300)
    value = law.set_index("parameter")["value"]
    plateaus = value[value.index.str.startswith("e_np")]
    for e_np, style in ((plateaus.min(), "-"), (plateaus.max(), "--")):
        error = joint_error(fine, e_np, gamma=value["gamma"], p=value["p"], e_up=value["e_up"])
        label = f"joint law, e_np = {e_np:.2g} %"
        collapsed.plot(fine, error, style, color="#666666", label=label)
    for axis in (raw, collapsed):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.invert_xaxis()
    raw.yaxis.set_major_formatter(ScalarFormatter())
    raw.yaxis.set_minor_formatter(NullFormatter())
    percent_ticks(raw.xaxis, points["density"].to_numpy(float))
    raw.set_xlabel("density d: weights kept (%)")
    raw.set_ylabel("error (%) = 100 − accuracy")
    collapsed.set_xlabel(f"m = l^{_power(value['phi'])} w^{_power(value['psi'])} d")
    legend(figure, [collapsed], ncols=3)
    return figure


def _power(exponent: float) -> str:
    return "0" if np.isnan(exponent) else f"{exponent:.2f}"
