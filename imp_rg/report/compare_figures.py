"""The figures of a comparison's page with their captions; the lead figure first.

In: `ComparisonTables`. Out: ``figures/*.png`` and ``figures/*.svg``, and pairs of SVG and caption.
"""

from pathlib import Path

import numpy as np

from imp_rg import plots
from imp_rg.report.compare_verdict import measure_title
from imp_rg.runs.comparison_tables import ComparisonTables

CAPTIONS = {
    "tree": "Which runs are close: they merge at the mean distance of their exponents. A dashed "
    "merge is refused: it would join runs that are told apart.",
    "profiles": "Exponents of all runs, block by block; above zero the block gains weight "
    "magnitude under pruning.",
    "distances": "Distances of all pairs, root mean square over blocks; in standard errors, chance "
    "gives 1 to two equal runs. The P profile counts weights only and is the control.",
}

UNITS = {"distance_se": "standard errors", "distance": "sigma"}


def draw_comparison(tables: ComparisonTables, folder: Path) -> list[tuple[Path, str]]:
    """Draws the figures; the tree leads, if there is one to see.

    Args:
      tables: The comparison.
      folder: Where PNG and SVG go.

    Returns:
      SVG and caption of each.

    References:
      House definition.
    """
    settings, names = tables.settings, tables.names
    exponents = {run["name"]: run["exponents"] for run in tables.runs}
    drawn = {"profiles": plots.sigma_profiles(exponents, ci_level=settings["ci_level"])}
    linkage = np.array(settings["linkage"], float)
    if len(names) > 2 and np.isfinite(linkage).all():
        classes = [run["class"] for run in tables.runs]
        unit = UNITS[settings["linkage_measure"]]
        drawn = {"tree": plots.class_tree(names, linkage, classes, unit), **drawn}
    titles = {measure: measure_title(measure) for measure in tables.measures}
    drawn["distances"] = plots.distance_maps(tables.pairs, names, titles)
    return [(plots.save_figure(drawn[name], folder, name), CAPTIONS[name]) for name in drawn]
