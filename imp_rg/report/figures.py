"""The figures of a run's page with their captions; the lead figure first.

In: `RunTables`. Out: ``figures/*.png`` and ``figures/*.svg``, and pairs of SVG and caption.
"""

from pathlib import Path

from imp_rg import plots
from imp_rg.report.lead import lead_nulls
from imp_rg.runs.run_tables import RunTables

CAPTIONS = {
    "sigma": "Exponent of every block beside its nulls. Left: sigma with its interval (black) and "
    "the nulls. Right: sigma minus null, by differences within each seed.",
    "flow": "Flow in the blocks of largest and smallest sigma. Each arrow is one pruning.",
    "shares": "Shares against RG time: a straight line is an exponential, sigma its slope.",
    "running": "Sigma of each single transition; level where one exponent is enough. Intervals of "
    "few seeds may leave the panel.",
    "density": "Weights kept in every block, percent, mean over seeds.",
    "metric": "Test metric against density. Below the dashed line pruning costs over one point.",
}


def draw_run(tables: RunTables, folder: Path) -> list[tuple[Path, str]]:
    """Draws what a run has; the first figure leads the page.

    Args:
      tables: The run.
      folder: Where PNG and SVG go.

    Returns:
      SVG and caption of each; those of the flow are missing where no seed finished level 0.

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
    return [(plots.save_figure(drawn[name], folder, name), CAPTIONS[name]) for name in drawn]


def _opposite_blocks(tables: RunTables) -> tuple[str, str]:
    """The blocks whose shares grow and shrink fastest; the outermost ones without exponents."""
    rows = tables.listed()
    sigma = rows.set_index("block")["sigma"].dropna()
    if len(sigma) < 2:
        return rows["block"].iloc[0], tables.exponents()["block"].iloc[-1]
    return str(sigma.idxmax()), str(sigma.idxmin())
