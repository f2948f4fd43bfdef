"""Error against density with the fitted law, and the collapse of several tasks onto one curve."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from imp_rg.plots.intervals import SERIES_STYLES
from imp_rg.plots.style import STYLE, WIDTH, percent_ticks
from imp_rg.rg import ErrorLaw


class FittedCurve(NamedTuple):
    """Errors of one task and their law.

    Attributes:
      task: Its name.
      density: Kept fraction.
      errors: In percent.
      law: Fitted to them.
    """

    task: str
    density: Float[np.ndarray, " level"]
    errors: Float[np.ndarray, "seed level"]
    law: ErrorLaw


@rc_context(STYLE)
def error_curves(curves: Sequence[FittedCurve]) -> Figure:
    """Error against density on logarithmic axes: seeds faint, their mean, the fitted law.

    The law is drawn solid where gamma is identified, dashed where it is not. Zero errors have no
    place on the axis.

    References:
      Redman et al., arXiv:2110.03210, Fig. 3.
    """
    figure, axis = _axis()
    for curve, (color, marker) in zip(curves, _styles(curves), strict=True):
        order = np.argsort(curve.density)
        density, errors = curve.density[order], curve.errors[:, order]
        shown = np.where(errors > 0, errors, np.nan)
        if len(errors) > 1:
            for seed in shown:
                axis.plot(100 * density, seed, marker, color=color, alpha=0.35, markersize=2.5)
        mean = errors.mean(axis=0)
        mean = np.where(mean > 0, mean, np.nan)
        axis.plot(100 * density, mean, marker, color=color, markersize=4.5, label=curve.task)
        fine = np.geomspace(density[0], density[-1], 300)
        law = curve.law
        label = f"fit, γ = {law.gamma:.2f}" if law.identified else "fit, γ not identified"
        style = "-" if law.identified else "--"
        axis.plot(100 * fine, law.error_at(fine), style, color=color, linewidth=1.2, label=label)
    smallest = min(curve.density.min() for curve in curves)
    largest = max(curve.density.max() for curve in curves)
    axis.set_xlim(115 * largest, 87 * smallest)
    percent_ticks(axis.xaxis, np.array([smallest]))
    _plain_errors(axis)
    axis.set_xlabel("density: weights kept (%), pruning goes right")
    axis.set_ylabel("error (%) = 100 − accuracy")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@rc_context(STYLE)
def error_collapse(curves: Sequence[FittedCurve]) -> Figure:
    """Error over e_np against density over the paper's p: tasks with one gamma share a curve.

    Each task leaves that curve below its own lower knee. Those that are not identified are left
    out: their scales are arbitrary.

    References:
      House definition, from Redman et al., arXiv:2110.03210, Eq. 15.
    """
    figure, axis = _axis()
    for curve, (color, marker) in zip(curves, _styles(curves), strict=True):
        if not curve.law.identified:
            continue
        law = curve.law.in_paper_gauge()
        order = np.argsort(curve.density)
        mean = curve.errors.mean(axis=0)[order]
        mean = np.where(mean > 0, mean, np.nan)
        x = curve.density[order] / law.p
        label = f"{curve.task}, γ = {law.gamma:.2f}"
        axis.plot(x, mean / law.e_np, marker, color=color, markersize=4.5, label=label)
        fine = np.geomspace(x[0], x[-1], 300)
        axis.plot(fine, law.error_at(fine * law.p) / law.e_np, color=color, linewidth=0.9)
    axis.invert_xaxis()
    _plain_errors(axis)
    axis.set_xlabel("density / p (p of the paper's gauge, where the error begins to rise)")
    axis.set_ylabel("error / e_np")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _axis() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH * 0.85, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    axis.set_yscale("log")
    return figure, axis


def _styles(curves: Sequence[FittedCurve]) -> list[tuple[str, str]]:
    styles = (SERIES_STYLES[i % len(SERIES_STYLES)] for i in range(len(curves)))
    return [(style["color"], style["marker"]) for style in styles]


def _plain_errors(axis: Axes) -> None:
    """Numbers, not powers of ten: 1, 2, 5, 10, ..."""
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
