"""What all figures share: palette, seeds and means, legends, files.

Okabe and Ito's palette, and never colour alone: figures stay legible in grey and on paper.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from imp_rg.rg.stats import t_interval
from imp_rg.runs.files import write_bytes

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

STYLE: dict[Any, Any] = {
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
    with rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout stands; making it again is slow
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


def rg_time(flow: pd.DataFrame) -> Float[np.ndarray, " level"]:
    """RG time l = -ln density of every level."""
    return -np.log(flow.groupby("level")["density"].first().to_numpy(float))


def complete(values: Float[np.ndarray, "seed level"]) -> Float[np.ndarray, "seed level"]:
    """Blanks seeds that miss a level, so that means do not jump where a seed stops."""
    return np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan)


def draw_seeds(axis: Axes, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Seeds thin, the mean of the complete ones bold; returns the mean."""
    for seed in values:
        axis.plot(x, seed, color=SEED, alpha=0.6, linewidth=0.8, label="seeds")
    mean = t_interval(complete(values)).mean
    axis.plot(x, mean, "o-", color=MEASURED, linewidth=1.4, markersize=2.6, label="mean of seeds")
    return mean


def legend(figure: Figure, axes: list[Axes], *, ncols: int = 5) -> None:
    """One entry per label, above the panels."""
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=ncols)


def percent_ticks(axis: Axis, density: np.ndarray) -> None:
    """Plain percent labels on a logarithmic axis, as many as fit."""
    low = 100 * density.min()
    ticks = [t for t in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if t >= low]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def short(percent: float) -> str:
    """At most three characters where three tell enough: 100, 51, 6.9, 0.92."""
    if not np.isfinite(percent):
        return ""
    return f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.2g}"
