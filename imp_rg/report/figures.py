"""The figures of the page, with their titles and captions.

In: `RunTables`. Out: ``figures/*.png``, ``figures/*.svg``, and `Figure`s that carry the SVG inside.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imp_rg import plots
from imp_rg.report.lead import lead_nulls
from imp_rg.report.run_tables import RunTables
from imp_rg.report.templates import inline

CAPTIONS = {
    "sigma": (
        "Exponent of every block beside its nulls",
        "Left: measured sigma (black, with its interval) above the nulls. Right: measured minus "
        "null, from differences within each seed. Where the interval crosses zero, the block "
        "cannot be told from the null.",
    ),
    "flow": (
        "Flow in two blocks",
        "Shares of the surviving magnitude in the blocks with the largest and the smallest sigma. "
        "Each step is one pruning; arrows show its direction.",
    ),
    "shares": (
        "Shares against RG time",
        "A straight line is a pure exponential, and its slope is sigma by the slope estimator.",
    ),
    "running": (
        "Running exponent",
        "Sigma of each single transition. A level line means that one exponent is enough. "
        "Intervals may leave the panel when seeds are few.",
    ),
    "density": ("Density of every block", "Weights kept, in percent, mean over seeds."),
    "metric": (
        "Test metric against density",
        "Below the dashed line, pruning costs more than one point.",
    ),
}
"""Title and caption of each figure."""


class Figure(NamedTuple):
    """A figure on the page.

    Attributes:
      name: File name without ending.
      title: Short; also the alternative text.
      caption: How to read it.
      source: The SVG as a data URI.
    """

    name: str
    title: str
    caption: str
    source: str


def write_figures(tables: RunTables, folder: Path) -> list[Figure]:
    """Draws what a run has; the first figure leads the page.

    Args:
      tables: The run.
      folder: Where PNG and SVG go.

    Returns:
      The figures; those of the flow are missing where no seed finished level 0.

    References:
      House definition.
    """
    flow, null_flow, ci_level = tables.trained, tables.null_flow, tables.ci_level
    paper, slope = tables.exponents(), tables.exponents("slope")
    blocks = list(paper["block"])
    metric = str(tables.config.get("metric", "test metric (%)"))
    drawn = {"sigma": plots.sigma_beside_nulls(paper, lead_nulls(paper), ci_level=ci_level)}
    if len(flow):
        drawn |= {
            "flow": plots.flow_plane(flow, null_flow, _opposite_blocks(tables)),
            "shares": plots.share_decay(flow, slope),
            "running": plots.running_exponent(flow, null_flow, blocks, ci_level=ci_level),
            "density": plots.density_map(flow, blocks),
        }
    if tables.metrics["test_metric"].notna().any():
        drawn["metric"] = plots.metric_curve(tables.metrics, metric, ci_level=ci_level)
    return save_figures(drawn, CAPTIONS, folder)


def save_figures(
    drawn: Mapping[str, Any], captions: Mapping[str, tuple[str, str]], folder: Path
) -> list[Figure]:
    """Writes figures as PNG and SVG and gives them title and caption. House definition."""
    figures = []
    for name, figure in drawn.items():
        source = inline(plots.save_figure(figure, folder, name))
        figures.append(Figure(name, *captions[name], source))
    return figures


def _opposite_blocks(tables: RunTables) -> tuple[str, str]:
    """The blocks whose shares grow and shrink fastest; the outermost ones without exponents."""
    rows = tables.listed()
    sigma = rows.set_index("block")["sigma"].dropna()
    if len(sigma) < 2:
        return rows["block"].iloc[0], tables.exponents()["block"].iloc[-1]
    return str(sigma.idxmax()), str(sigma.idxmin())
