"""The page of the critical exponents: one table as the paper's Table 7, ours beside it.

In: a folder with exponents.csv, curves.csv and config.json. Out: figures and a `Page`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imp_rg import published
from imp_rg.plots.error_law import FittedCurve, error_collapse, error_curves
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import Column, estimate, number, significant, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.report.words import percent_text
from imp_rg.rg import ErrorLaw
from imp_rg.rg.error_law import GAMMA_BOUNDS, MIN_IN_WINDOW
from imp_rg.rg.estimate import MISSING, Estimate
from imp_rg.runs.files import read_csv, read_json

NOT_IDENTIFIED = "not identified"

CURVES = (
    "Error against density. Markers: measured (faint: single seeds). Lines: the fitted law, dashed "
    "where gamma is not identified. As the paper's Fig. 3."
)
COLLAPSE = (
    "Error over e_np against density over p, in the paper's gauge: tasks with the same gamma share "
    "one curve, which each leaves below its lower knee."
)


def make_page(folder: Path) -> Page:
    """Draws the figures and makes the page of fits."""
    table = read_exponents(folder)
    figures = draw_figures(folder, table)
    sections = [
        Section(
            title="Errors and laws",
            figures=figures,
            note=""
            if len(figures) > 1
            else "No collapse is drawn: it takes two tasks whose gamma is identified.",
        ),
        Section(
            title="Gamma beside the paper's Table 7",
            name="gamma",
            table=gamma_table(table),
            note="The law err(d) = e_np [(d² + q²) / (d² + p²)]^(γ/2) is the same curve for "
            "(γ, p, q) and (−γ, q, p): the sign of gamma is a convention. The paper prints the "
            "negative one, without intervals, for ResNet-50. A gamma is not identified if fewer "
            f"than {MIN_IN_WINDOW} densities lie on the power law, between 3 p and q / 3, or if "
            "its profile interval has no end between {} and {}.".format(*GAMMA_BOUNDS),
        ),
        parameter_section(folder, table),
    ]
    return Page(
        title="Critical exponents of the error",
        question="With which exponent does the error grow as weights are pruned, and do the data "
        "determine it?",
        answers=answers(table),
        sections=sections,
    )


def read_exponents(folder: Path) -> pd.DataFrame:
    """The fits, one row per curve."""
    table = read_csv(folder / "exponents.csv")
    # Where all are identified, the column of reasons is read as numbers that are missing.
    return table.assign(why=table["why"].astype(object).fillna(""), task=table["task"].astype(str))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows by column name."""
    return table.to_dict("records")  # pyright: ignore[reportReturnType]


def draw_figures(folder: Path, table: pd.DataFrame) -> list[tuple[Path, str]]:
    """The curves with their laws and, if two are identified, their collapse; with captions."""
    curves = _fitted_curves(folder, table)
    figures = [(save_figure(error_curves(curves), folder / "figures", "errors"), CURVES)]
    if table["identified"].sum() > 1:
        collapse = save_figure(error_collapse(curves), folder / "figures", "collapse")
        figures.append((collapse, COLLAPSE))
    return figures


def _fitted_curves(folder: Path, table: pd.DataFrame) -> list[FittedCurve]:
    """Curves by position: two folders may hold tasks of one name."""
    points, ci_level = read_csv(folder / "curves.csv"), _ci_level(folder)
    ends = np.cumsum(table["num_seeds"] * table["num_densities"])
    curves = []
    for row, end in zip(records(table), ends, strict=True):
        shape = row["num_seeds"], row["num_densities"]
        rows = points.iloc[end - shape[0] * shape[1] : end]
        density = rows["density"].to_numpy(float)[: shape[1]]
        errors = rows["error"].to_numpy(float).reshape(shape)
        curves.append(FittedCurve(row["task"], density, errors, _law(row, ci_level)))
    return curves


def _law(row: Mapping[str, Any], ci_level: float) -> ErrorLaw:
    same = ("gamma", "p", "q", "e_np", "e_up", "num_in_window", "dispersion", "seed_dispersion")
    return ErrorLaw(
        **{name: row[name] for name in same},
        gamma_ci=(row["gamma_low"], row["gamma_high"]),
        ci_level=ci_level,
        reasons=() if row["identified"] else tuple(row["why"].split("; ")),
    )


def _ci_level(folder: Path) -> float:
    return read_json(folder / "config.json")["ci_level"]


def answers(table: pd.DataFrame) -> list[str]:
    """How many are identified, their values, and where the paper's lie if they are known."""
    found = table[table["identified"]]
    sentences = [f"Gamma is identified in {len(found)} of {len(table)} curves."]
    for row in records(found):
        side = published_side(row)
        beside = f"; the paper's {row['published']:+.2f} lies {side} the interval" if side else ""
        value = Estimate.of(row, "paper_gamma").text(2)
        sentences.append(f"{row['task']}: gamma = {value} in the paper's gauge{beside}.")
    return sentences


def published_side(row: Mapping[str, Any]) -> str:
    """Whether the paper's gamma lies within or outside our interval; empty if there is none."""
    if not row["identified"] or np.isnan(row.get("published", np.nan)):
        return ""
    is_outside = Estimate.of(row, "paper_gamma").excludes(row["published"])
    return "outside" if is_outside else "within"


def verdict(row: Mapping[str, Any]) -> str:
    """Identified, or why not."""
    return "identified" if row["identified"] else f"{NOT_IDENTIFIED}: {row['why']}"


def gamma_column(name: str) -> Column:
    """Gamma with its interval; in words where the data do not say."""
    return lambda row: Estimate.of(row, name).text(2) if row["identified"] else NOT_IDENTIFIED


SHOWN: dict[str, Column] = {
    "task": "task",
    "gamma": gamma_column("gamma"),
    "paper's gauge": gamma_column("paper_gamma"),
    "verdict": verdict,
}
"""Columns on the terminal."""


def gamma_table(table: pd.DataFrame) -> pd.DataFrame:
    """Ours first, each beside its published row; then the published rows that have none of ours."""
    labels = dict.fromkeys(label for row in published.rows(7) for label in row.labels)
    rows: list[dict[str, Any]] = []
    for row in records(table):
        found = published.find(7, str(row["dataset"]))
        rows.append({**row, "row": found.row if found else "", **(found.by_label if found else {})})
    there = {row["row"] for row in rows}
    rows += [{"row": row.row, **row.by_label} for row in published.rows(7) if row.row not in there]
    columns: dict[str, Column] = {"task": _label}
    columns |= {f"paper, {label}": _printed(label) for label in labels}
    columns["here, paper's gauge"] = _ours(gamma_column("paper_gamma"))
    columns["here, positive gauge"] = _ours(gamma_column("gamma"))
    return tabulate(rows, columns | {"verdict": _ours(verdict)})


def _label(row: Mapping[str, Any]) -> str:
    if "task" not in row:
        return row["row"]
    return f"{row['task']} ({row['row']})" if row["row"] else row["task"]


def _printed(label: str) -> Column:
    return lambda row: f"{row[label]:+.2f}" if label in row else MISSING


def _ours(column: Any) -> Column:
    return lambda row: column(row) if "task" in row else MISSING


def parameter_section(folder: Path, table: pd.DataFrame) -> Section:
    """Everything that was fitted, one row per curve."""
    columns: dict[str, Column] = {
        "task": "task",
        "seeds": "num_seeds",
        "densities": "num_densities",
        "on the power law": "num_in_window",
        "p": _if_identified(lambda row: percent_text(row["p"])),
        "q": _if_identified(lambda row: percent_text(row["q"])),
        "e_np (%)": _if_identified(significant("e_np", 3)),
        "e_up (%)": _if_identified(significant("e_up", 3)),
        "noise": _noise,
        "seeds / noise": number("seed_dispersion", 2),
        "held out (points)": number("held_out_rms", 2),
    }
    if "eq1_gamma" in table:
        columns["gamma of Eq. 1"] = estimate("eq1_gamma", 2)
    return Section(
        title="All parameters (positive gauge)",
        name="parameters",
        table=tabulate(table, columns),
        note=f"Intervals cover {100 * _ci_level(folder):g} %. e_np is the error unpruned; e_up "
        "that at vanishing density, an extrapolation. Noise: standard deviation of the logarithm "
        "of the error, or its variance over the binomial one where the number of test examples is "
        "known. Seeds: variance of gamma between seeds over what the noise explains; above 1 it "
        "widens the interval. Held out: error in points of every third density, predicted from "
        "the others.",
    )


def _if_identified(column: Any) -> Column:
    return lambda row: column(row) if row["identified"] else MISSING


def _noise(row: Mapping[str, Any]) -> str:
    if pd.notna(row["num_test"]):
        return f"{row['dispersion']:.2f} × binomial"
    return f"{np.sqrt(row['dispersion']):.3f}"
