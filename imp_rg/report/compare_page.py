"""The page of a comparison: what its folder says of several runs, as data.

In: the folder of a comparison. Out: a `Page`; ``figures/*.png``, ``figures/*.svg`` and
``report.html``, which links to the pages of the runs.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from imp_rg.report.columns import Column, estimate, number, tabulate
from imp_rg.report.compare_verdict import (
    answers,
    comparison_caveats,
    measure_title,
    pair_frame,
)
from imp_rg.report.page import Page, Section, limits_section, write_page
from imp_rg.report.paper import paper_sections
from imp_rg.report.words import percent_text
from imp_rg.rg.estimate import MISSING
from imp_rg.runs.comparison_tables import ComparisonTables, read_comparison
from imp_rg.runs.paper_tables import read_paper_comparison
from imp_rg.runs.run_tables import select

QUESTION = (
    "Do these runs gain and lose weight magnitude in the same blocks at the same rates – do they "
    "share a universality class – and should a winning ticket of one work in another?"
)


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
    return write_page(make_page(folder), folder)


def make_page(folder: Path) -> Page:
    """The page of the folder of a comparison; its figures are drawn and saved.

    Raises:
      ValueError: If a file is missing or unreadable.

    References:
      House definition.
    """
    from imp_rg.report.compare_figures import draw_comparison  # Matplotlib

    tables = read_comparison(folder)
    lead, *others = draw_comparison(tables, folder / "figures")
    pairs, paper = pair_frame(tables), read_paper_comparison(folder)
    limits = [str(caveat) for caveat in comparison_caveats(tables)]
    return Page(
        title=f"Comparison of {len(tables.runs)} IMP flows",
        question=QUESTION,
        answers=answers(tables),
        sections=[
            Section(
                title="",
                figures=[lead],
                table=tabulate(pairs, PAIRS),
                note="Sigma: the paper's estimator, trained weights, mean over levels. Distance: "
                "root mean square over blocks of the differences of means over seeds. p: "
                "permutation of seeds, adjusted by Holm over all pairs. Not told apart is not the "
                "same. Transfer is a prediction; nothing was transferred.",
                name="pairs",
            ),
            Section(
                title="How far apart, and by what",
                table=tabulate(pairs, DIFFERENCES),
                note=f"First minus second run; {100 * tables.settings['ci_level']:g} % Welch "
                "t-intervals over seeds, not corrected for the number of blocks. Beyond the init "
                "null, by counts: the verdicts of these measures alone.",
                name="differences",
            ),
            limits_section(limits),
            _runs(tables),
            Section(title="More figures", figures=others),
            *(paper_sections(paper) if paper else []),
            Section(
                title="Every measure of every pair",
                table=tabulate(
                    tables.pairs[tables.pairs["measure"].isin(tables.measures)], MEASURES
                ),
                is_folded=True,
            ),
            *_blocks(tables),
        ],
    )


def _pair_name(row) -> str:
    return f"{row['run_a']}, {row['run_b']}"


def _p_text(row) -> str:
    texts = [MISSING if np.isnan(row[name]) else f"{row[name]:.3f}" for name in ("p", "p_smallest")]
    return "{} ({})".format(*texts)


def _apart_text(row) -> str:
    num = row["num_apart"]
    return MISSING if pd.isna(num) else f"{num:.0f} of {row['num_blocks']}"


PAIRS: dict[str, Column] = {
    "pair": _pair_name,
    "distance of sigma": number("distance"),
    "in standard errors": number("distance_se", 1),
    "p (smallest possible)": _p_text,
    "adjusted p": number("p_holm"),
    "verdict": "verdict",
    "should a ticket transfer?": "prediction",
}

DIFFERENCES: dict[str, Column] = {
    "pair": _pair_name,
    "largest difference of sigma": estimate("largest"),
    "in": "largest_block",
    "blocks told from zero": _apart_text,
    "allowed up to": number("bound"),
    "beyond the init null": "verdict_excess_init",
    "by counts": "verdict_param_share",
    "matched by": "matched_by",
}

MEASURES: dict[str, Column] = {
    "pair": _pair_name,
    "measure": lambda row: measure_title(row["measure"]),
    "distance": number("distance", 4),
    "in standard errors": number("distance_se", 2),
    "p": number("p", 4),
    "smallest p": number("p_smallest", 4),
    "adjusted p": number("p_holm", 4),
    "verdict": "verdict",
}


def _runs(tables: ComparisonTables) -> Section:
    columns: dict[str, Column] = {
        "run": "name",
        "class": lambda run: str(run["class"] or "undecided"),
        "seeds": "num_seeds",
        "levels": lambda run: f"0 to {len(run['density']) - 1}",
        "last density": lambda run: percent_text(run["density"][-1]),
        "what it is": "description",
    }
    links = [(run["name"], run["link"]) for run in tables.runs if run["link"]]
    return Section(title="Runs", table=tabulate(tables.runs, columns), links=links, name="runs")


def _blocks(tables: ComparisonTables) -> list[Section]:
    """One fold per pair: the difference of each measure, block by block."""
    frame = tables.blocks.rename(columns={"ci_low": "difference_low", "ci_high": "difference_high"})
    folds = []
    for row in tables.of("sigma").to_dict("records"):
        a, b = row["run_a"], row["run_b"]
        of_pair = select(frame, run_a=a, run_b=b)
        text = tabulate(of_pair, {"block": "block", "difference": estimate("difference")})
        text["measure"] = of_pair["measure"].map(measure_title)
        table = text.pivot(index="block", columns="measure", values="difference")
        table = table.loc[text["block"].unique(), text["measure"].unique()]
        table = table.reset_index().rename_axis(columns=None)
        folds.append(Section(title=f"{a} minus {b}, block by block", table=table, is_folded=True))
    return folds
