"""The page of a comparison: figures, tables and words of several runs in a single file.

In: the folder of a comparison. Out: ``figures/*.png``, ``figures/*.svg`` and ``report.html``, which
needs nothing else but the pages of the runs it links to.
"""

from pathlib import Path

import numpy as np

from imp_rg import plots
from imp_rg.plots.comparison import measure_title
from imp_rg.report.compare_folder import ComparisonTables, read_comparison
from imp_rg.report.compare_words import answer, comparison_caveats, pair_sentence, prediction
from imp_rg.report.figures import Figure, save_figures
from imp_rg.report.paper_section import paper_section
from imp_rg.report.run_tables import select
from imp_rg.report.templates import Table, render
from imp_rg.report.words import decimal_text, environment_lines, estimate_text
from imp_rg.runs.files import write_bytes

CAPTIONS = {
    "tree": (
        "Which runs are close",
        "Runs merge where the mean distance of their exponents is. A dashed merge is refused: it "
        "would join runs that are told apart after correction for all pairs.",
    ),
    "profiles": (
        "Exponents of all runs, block by block",
        "Sigma above zero: the block gains weight magnitude under pruning. Runs with other blocks "
        "stand in a panel of their own.",
    ),
    "distances": (
        "Distances of all pairs",
        "Root mean square over blocks, in standard errors where there is a scatter between seeds: "
        "1 is what chance gives two equal runs. The P profile uses counts of surviving weights "
        "only and is the control.",
    ),
}
"""Title and caption of each figure."""

MAX_SENTENCES = 10
"""With more pairs, their sentences go into a fold."""

UNITS = {"distance_se": "standard errors", "distance": "sigma"}


def write_comparison_report(folder: Path) -> Path:
    """Draws the figures of a comparison and writes its page; nothing is computed anew.

    Args:
      folder: Holds ``comparison.csv``, ``comparison_blocks.csv``, ``comparison.json`` and
        ``environment.json``; with ``paper.csv`` and ``paper_blocks.csv`` the page has a section on
        the published numbers.

    Returns:
      Path of ``report.html``.

    Raises:
      ValueError: If a file is missing or unreadable.

    References:
      House definition.
    """
    tables = read_comparison(folder)
    lead, *others = _write_figures(tables, folder / "figures")
    page = render(
        "compare.html.j2",
        runs=tables.runs,
        environment=environment_lines(tables.environment),
        ci_percent=f"{100 * tables.settings['ci_level']:g} %",
        answer=answer(tables),
        lead=lead,
        figures=others,
        pairs=_pair_rows(tables),
        max_sentences=MAX_SENTENCES,
        caveats=comparison_caveats(tables),
        measures=_measure_table(tables),
        differences=_difference_tables(tables),
        paper=paper_section(folder),
    )
    write_bytes(folder / "report.html", page)
    return folder / "report.html"


def _write_figures(tables: ComparisonTables, folder: Path) -> list[Figure]:
    """The tree leads, if there is one to see."""
    settings, names = tables.settings, tables.names
    ci_level = settings["ci_level"]
    exponents = {run["name"]: run["exponents"] for run in tables.runs}
    drawn = {"profiles": plots.sigma_profiles(exponents, ci_level=ci_level)}
    linkage = np.array(settings["linkage"], float)
    if len(names) > 2 and np.isfinite(linkage).all():
        classes = [run["class"] for run in tables.runs]
        unit = UNITS[settings["linkage_measure"]]
        drawn = {"tree": plots.class_tree(names, linkage, classes, unit), **drawn}
    drawn["distances"] = plots.distance_maps(tables.pairs, names, tables.measures)
    return save_figures(drawn, CAPTIONS, folder)


def _pair_rows(tables: ComparisonTables) -> list[dict[str, str]]:
    rows = []
    for row in tables.of("sigma").to_dict("records"):
        rows.append(
            {
                "pair": f"{row['run_a']}, {row['run_b']}",
                "distance": decimal_text(row["distance"], 3),
                "distance_se": decimal_text(row["distance_se"], 1),
                "p": f"{decimal_text(row['p'], 3)} ({decimal_text(row['p_smallest'], 3)})",
                "p_holm": decimal_text(row["p_holm"], 3),
                "verdict": row["verdict"],
                "prediction": prediction(row),
                "sentence": pair_sentence(tables, row["run_a"], row["run_b"]),
            }
        )
    return rows


def _measure_table(tables: ComparisonTables) -> Table:
    """Every measure of every pair."""
    head = ["pair", "measure", "distance", "in standard errors", "p", "smallest p"]
    head += ["adjusted p", "verdict"]
    known = tables.pairs[tables.pairs["measure"].isin(tables.measures)]
    rows = [
        [
            f"{row['run_a']}, {row['run_b']}",
            measure_title(row["measure"]),
            decimal_text(row["distance"], 4),
            decimal_text(row["distance_se"], 2),
            decimal_text(row["p"], 4),
            decimal_text(row["p_smallest"], 4),
            decimal_text(row["p_holm"], 4),
            row["verdict"],
        ]
        for row in known.to_dict("records")
    ]
    return Table(head, rows)


def _difference_tables(tables: ComparisonTables) -> dict[str, Table]:
    """One table per pair: the difference of each measure, block by block."""
    found = {}
    for row in tables.of("sigma").to_dict("records"):
        a, b = row["run_a"], row["run_b"]
        of_pair = select(tables.blocks, run_a=a, run_b=b)
        measures = list(of_pair["measure"].unique())
        texts = {
            (r["measure"], r["block"]): estimate_text(r["difference"], r["ci_low"], r["ci_high"])
            for r in of_pair.to_dict("records")
        }
        blocks = list(of_pair["block"].unique())
        cells = [[block, *(texts[measure, block] for measure in measures)] for block in blocks]
        found[f"{a} minus {b}"] = Table(["block", *map(measure_title, measures)], cells)
    return found
