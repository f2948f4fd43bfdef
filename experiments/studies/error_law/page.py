"""The page of the critical exponents: one table as the paper's Table 7, ours beside it.

In: the rows of exponents.csv and the figures. Out: ``report.html``, which needs no other file.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imp_rg import published
from imp_rg.report.figures import Figure
from imp_rg.report.templates import Table, inline, render
from imp_rg.report.words import MISSING, percent_text
from imp_rg.rg.error_law import GAMMA_BOUNDS, MIN_IN_WINDOW
from imp_rg.runs.files import write_bytes

NOT_IDENTIFIED = "not identified"

CAPTIONS = {
    "errors": (
        "Error against density",
        "Markers: measured (faint: single seeds). Lines: the fitted law, dashed where gamma is not "
        "identified. As the paper's Fig. 3.",
    ),
    "collapse": (
        "Collapse",
        "Error over e_np against density over p, in the paper's gauge: tasks with the same gamma "
        "share one curve, which each leaves below its lower knee.",
    ),
}
"""Title and caption of each figure."""


def write_page(
    folder: Path, table: pd.DataFrame, figures: dict[str, Path], *, ci_level: float
) -> Path:
    """Writes ``report.html``; returns its path."""
    rows: list[dict[str, Any]] = table.to_dict("records")  # pyright: ignore[reportAssignmentType]
    ci = f"{100 * ci_level:g} %"
    html = render(
        "exponents.html.j2",
        answers=[_answer(row) for row in rows],
        figures=[Figure(name, *CAPTIONS[name], inline(svg)) for name, svg in figures.items()],
        has_collapse="collapse" in figures,
        gamma=_gamma_table(rows, ci),
        parameters=parameter_table(rows),
        fewest=MIN_IN_WINDOW,
        bounds=GAMMA_BOUNDS,
    )
    write_bytes(folder / "report.html", html)
    return folder / "report.html"


def gamma_text(gamma: float, is_identified: bool) -> str:
    """Signed, two decimals as in the paper; in words where the data do not say."""
    return f"{gamma:+.2f}" if is_identified else NOT_IDENTIFIED


def interval_text(low: float, high: float, is_identified: bool) -> str:
    """[low, high], or a dash."""
    return f"[{low:+.2f}, {high:+.2f}]" if is_identified else MISSING


def published_gamma(dataset: str) -> published.PublishedRow | None:
    """Row of Table 7 of a data set, whatever its spelling: cifar10 is CIFAR-10."""
    rows = {plain_name(row.row): row for row in published.rows(7)}
    return rows.get(plain_name(dataset).removesuffix("cropped"))


def plain_name(name: str) -> str:
    """Letters and digits of a name, in lower case: cifar10 of CIFAR-10."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _columns() -> list[str]:
    return list(dict.fromkeys(label for row in published.rows(7) for label in row.labels))


def _answer(row: dict[str, Any]) -> str:
    if not row["identified"]:
        return f"{row['task']}: gamma is not identified: {row['why']}."
    interval = interval_text(row["gamma_low"], row["gamma_high"], True)
    return (
        f"{row['task']}: gamma = {row['gamma']:.2f} {interval}, "
        f"{gamma_text(row['paper_gamma'], True)} in the paper's gauge; "
        f"{row['num_in_window']} densities lie on the power law."
    )


def _gamma_table(rows: list[dict[str, Any]], ci: str) -> Table:
    """Ours first, each beside its published row; then the published rows that have none of ours."""
    table, used = [], set()
    for row in rows:
        found = published_gamma(row["dataset"])
        used.add(found.row if found else None)
        label = f"{row['task']} ({found.row})" if found else str(row["task"])
        cells = []
        for gauge in ("paper_gamma", "gamma"):
            ends = row[f"{gauge}_low"], row[f"{gauge}_high"]
            cells += [gamma_text(row[gauge], row["identified"])]
            cells += [interval_text(*ends, row["identified"])]
        table.append([label, *_published_cells(found), *cells])
    for found in published.rows(7):
        if found.row not in used:
            table.append([found.row, *_published_cells(found), *[MISSING] * 4])
    head = ["task", *(f"paper, {column}" for column in _columns())]
    for gauge in ("paper's", "positive"):
        head += [f"here, {gauge} gauge", f"{ci} interval"]
    return Table(head, table)


def _published_cells(row: published.PublishedRow | None) -> list[str]:
    by_label = row.by_label if row else {}
    return [f"{by_label[c]:+.2f}" if c in by_label else MISSING for c in _columns()]


def parameter_table(rows: list[dict[str, Any]]) -> Table:
    """Everything that was fitted, one row a task."""
    head = ["task", "seeds", "densities", "on the power law", "p", "q", "e_np (%)", "e_up (%)"]
    head += ["noise", "seeds / noise", "held out (points)"]
    has_window = "eq1_gamma" in rows[0]
    table = []
    for row in rows:
        is_counted = pd.notna(row["num_test"])
        noise = row["dispersion"] if is_counted else np.sqrt(row["dispersion"])
        known = [percent_text(row["p"]), percent_text(row["q"])]
        known += [f"{row['e_np']:.3g}", f"{row['e_up']:.3g}"]
        cells = [str(row[name]) for name in ("task", "num_seeds", "num_densities", "num_in_window")]
        cells += known if row["identified"] else [MISSING] * 4
        cells += [f"{noise:.2f} × binomial" if is_counted else f"{noise:.3f}"]
        cells += [_or_missing(row["seed_dispersion"]), _or_missing(row["held_out_rms"])]
        if has_window:
            ends = interval_text(row["eq1_gamma_low"], row["eq1_gamma_high"], True)
            cells.append(f"{row['eq1_gamma']:+.2f} {ends}")
        table.append(cells)
    return Table(head + (["gamma of Eq. 1"] if has_window else []), table)


def _or_missing(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.2f}"
