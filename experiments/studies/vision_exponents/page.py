"""The page of the exponents of vision tickets: each run beside its value of Table 7.

In: a folder with exponents.csv, curves.csv and config.json. Out: figures and a `Page`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.error_law.page import (
    answers,
    draw_figures,
    gamma_column,
    parameter_section,
    published_side,
    read_exponents,
    verdict,
)
from imp_rg.report.columns import Column, signed, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.rg.estimate import MISSING


def _cell_of_table(row: Mapping[str, Any]) -> str:
    return MISSING if np.isnan(row["published"]) else f"{row['row']}, {row['column']}"


COLUMNS: dict[str, Column] = {
    "run": "task",
    "Table 7": _cell_of_table,
    "paper": signed("published", 2),
    "here": gamma_column("paper_gamma"),
    "the paper's": lambda row: published_side(row) or MISSING,
    "verdict": verdict,
}


def make_page(folder: Path) -> Page:
    """Draws the figures and makes the page of fits that have a column of the paper's values."""
    table = read_exponents(folder)
    gammas = Section(
        title="Gamma beside the paper's Table 7",
        name="gamma",
        figures=draw_figures(folder, table),
        table=tabulate(table, COLUMNS),
        note="In the paper's gauge, where gamma is negative: (γ, p, q) and (−γ, q, p) are the "
        "same curve. Columns of Table 7: labels of ImageNet stand for any pre-training with "
        "labels; files are taken by their names. The paper prints no intervals; it has ResNet-50 "
        "on whole data sets. Its value lies within or outside our interval.",
    )
    return Page(
        title="Critical exponents of vision tickets",
        question="With which exponent does the error of each task grow as weights are pruned, from "
        "scratch and pre-trained, and do the data determine it?",
        answers=answers(table),
        sections=[gammas, parameter_section(folder, table)],
    )
