"""The linear flow with cross terms: its vector field, and its prediction beside the seeds."""

import math

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from imp_rg.plots.style import FIT, MEASURED, SEED, STYLE, WIDTH, draw_seeds, legend
from imp_rg.rg import FittedFlow

DIAGONAL = "#666666"
MARGIN = 0.35
"""Of the visited range, on every side of the vector field."""

FAR = 1.0
"""A fixed point farther outside than this many visited ranges is not drawn."""


@rc_context(STYLE)
def linear_prediction(fitted: FittedFlow) -> Figure:
    """Share of every group against RG time: seeds, linear flow, diagonal model.

    References:
      House definition.
    """
    num_columns = 2 if len(fitted.groups) in (2, 4) else 3
    num_rows = math.ceil(len(fitted.groups) / num_columns)
    figure = Figure(figsize=(WIDTH, 0.9 + 2.1 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False).ravel()
    axes = list(grid[: len(fitted.groups)])
    for axis in grid[len(axes) :]:
        axis.set_visible(False)
    models = {
        "linear flow from level 0": (fitted.predicted(), "--", FIT),
        "diagonal model (G = 0)": (fitted.predicted_diagonal(), ":", DIAGONAL),
    }
    for i, (axis, group) in enumerate(zip(axes, fitted.groups, strict=True)):
        draw_seeds(axis, fitted.time, fitted.shares[..., i])
        low, high = axis.get_ylim()
        for label, (z, style, color) in models.items():
            mean = softmax(z.mean(axis=0) @ fitted.basis.T, axis=-1)[:, i]
            axis.plot(fitted.time, mean, style, color=color, linewidth=1.6, label=label)
        axis.set_ylim(low - 0.2 * (high - low), high + 0.2 * (high - low))
        axis.set_title(group, fontsize=8)
        axis.tick_params(labelsize=7, labelbottom=i + num_columns >= len(axes))
    figure.supxlabel("RG time l = −ln density (0 is dense)", fontsize=9)
    figure.supylabel("share of the magnitude", fontsize=9)
    legend(figure, axes)
    return figure


@rc_context(STYLE)
def linear_plane(fitted: FittedFlow) -> Figure:
    """Vector field of three groups in their two log-ratio coordinates, with the seeds' paths.

    References:
      House definition; the coordinates are those of Egozcue et al., Math. Geol. 35 (2003).
    """
    figure = Figure(figsize=(WIDTH * 0.85, 4.6), layout="constrained")
    axis = figure.subplots()
    low, high = _corners(fitted)
    _draw_field(axis, fitted, low, high)
    predicted = fitted.predicted()
    for path, model in zip(fitted.z, predicted, strict=True):
        axis.plot(*path.T, "o-", color=SEED, markersize=3, linewidth=0.9, label="seeds")
        axis.plot(*model.T, "--", color=FIT, linewidth=1.4, label="linear flow from level 0")
        axis.plot(*path[0], "s", color=MEASURED, markersize=5, label="dense")
    fixed = _fixed_point(fitted)
    if np.all((low <= fixed) & (fixed <= high)):
        axis.plot(*fixed, "*", color=FIT, markeredgecolor="black", markersize=13,
                  label="fixed point")  # fmt: skip
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(low[1], high[1])
    first, second, third = fitted.groups
    axis.set_xlabel(f"ln({first} / {second}) / √2")
    axis.set_ylabel(f"√(2/3) ln(√({first} · {second}) / {third})")
    legend(figure, [axis])
    return figure


def _draw_field(axis: Axes, fitted: FittedFlow, low: np.ndarray, high: np.ndarray) -> None:
    x, y = (np.linspace(*ends, 30) for ends in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    rate = grid @ fitted.G.T + fitted.b
    if np.abs(rate).max() > 0:
        u, v = np.moveaxis(rate, -1, 0)
        axis.streamplot(x, y, u, v, color="#bbbbbb", linewidth=0.8, density=0.9)


def _corners(fitted: FittedFlow) -> tuple[np.ndarray, np.ndarray]:
    """Corners of what is drawn: what was visited, and the fixed point unless it is far."""
    visited = fitted.z.reshape(-1, 2)
    span = np.maximum(np.ptp(visited, axis=0), 1e-6)
    fixed = _fixed_point(fitted)
    is_near = np.all((fixed > visited.min(0) - FAR * span) & (fixed < visited.max(0) + FAR * span))
    shown = np.vstack([visited, fixed]) if is_near else visited
    margin = MARGIN * np.maximum(np.ptp(shown, axis=0), 1e-6)
    return shown.min(axis=0) - margin, shown.max(axis=0) + margin


def _fixed_point(fitted: FittedFlow) -> np.ndarray:
    """In coordinates; NaN without one."""
    return np.log(fitted.fixed_point) @ fitted.basis
