"""The page: figures, tables and words of one run in a single file.

In: a run folder. Out: ``figures/*.png``, ``figures/*.svg`` and ``report.html``, which needs nothing
else: figures and style are inside.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from imp_rg.blocks import REST
from imp_rg.imp.observables import OBSERVABLES
from imp_rg.report.caveats import caveats
from imp_rg.report.figures import write_figures
from imp_rg.report.lead import lead_nulls, lead_rows
from imp_rg.report.paper_section import paper_section
from imp_rg.report.published_beside import agreement, agreement_text, answer, published_for
from imp_rg.report.run_tables import RunTables, read_tables
from imp_rg.report.templates import Table, render
from imp_rg.report.words import MISSING, environment_lines, estimate_text, number_text
from imp_rg.runs.files import write_bytes

NULL_NOTES = {
    "init": "prunes the weights of the rewind point without training",
    "oneshot": "prunes the dense trained weights without retraining",
    "gaussian": "is the closed form for Gaussian weights with the scale of each tensor",
}
"""What each null of the lead table does."""


WHOLES = {
    "prunable": "all surviving prunable weight magnitude",
    "blocks": "the surviving weight magnitude of the listed blocks",
    "all": "the weight magnitude of the whole network, tensors that are never pruned included,",
}
"""What a share is a share of, by denominator."""


def write_report(folder: Path) -> Path:
    """Draws the figures of a run and writes its page; nothing is computed anew.

    Args:
      folder: A run folder with settings and CSVs.

    Returns:
      Path of ``report.html``.

    Raises:
      ValueError: If a file of the run folder is missing or unreadable.
    """
    tables = read_tables(folder)
    paper = published_for(tables)
    exponents = tables.exponents().set_index("block")
    lead, *others = write_figures(tables, folder / "figures")
    page = render(
        "run.html.j2",
        title=tables.title,
        config=tables.config,
        environment=environment_lines(tables.environment),
        density=tables.density,
        ci_percent=f"{100 * tables.ci_level:g} %",
        answer=answer(tables),
        lead=lead,
        figures=others,
        lead_rows=lead_rows(tables.spectrum, denominator=tables.denominator),
        null_notes={null: NULL_NOTES[null] for null in lead_nulls(tables.spectrum)},
        whole=WHOLES[tables.denominator],
        rest=REST,
        caveats=caveats(tables),
        checks=_checks(tables),
        published=paper,
        published_agreement=paper and agreement_text(agreement(exponents["sigma"], paper.sigma)),
        exponents=exponents.to_dict("index"),
        missing=float("nan"),
        paper=paper_section(folder),
        folds=_folds(tables),
    )
    write_bytes(folder / "report.html", page)
    return folder / "report.html"


def _checks(tables: RunTables) -> list[str]:
    """What the run says about its own pipeline."""
    by_magnitude = tables.listed().set_index("block")["sigma"]
    by_count = tables.listed(quantity="param_share").set_index("block")["sigma"]
    checks = [
        "Sigma from counts of surviving weights (P) beside sigma from their magnitudes (M), which "
        "the paper calls consistent without giving numbers: "
        f"{agreement_text(agreement(by_magnitude, by_count))}."
    ]
    rows = tables.exponents()
    if "sigma_random" in rows and rows["sigma_random"].notna().any():
        at = rows["sigma_random"].abs().idxmax()
        checks.append(
            "Random pruning must give zero. Largest: "
            f"{number_text(rows['sigma_random'][at])} ({rows['block'][at]})."
        )
    sums = tables.trained.groupby(["seed", "level"])["magnitude_share"].sum()
    checks.append(f"Shares must sum to one. Largest deviation: {(sums - 1).abs().max():.1e}.")
    return checks


def _folds(tables: RunTables) -> dict[str, Table]:
    """Everything that does not lead, by title."""
    nulls = [c.removeprefix("sigma_") for c in tables.exponents() if c.startswith("sigma_")]
    folds = {
        "Other estimators, points and denominators (sigma with interval)": _variants(tables),
        "All nulls (sigma, and excess with interval)": _all_nulls(tables, nulls),
        "Is it an exponential? (curvature, scaling window, scatter over levels)": _shape(tables),
    }
    if len(tables.observables):
        last = tables.observables["level"].max()
        folds[f"Companion observables (level {last}, mean over seeds)"] = _observed(tables, last)
    return folds


def _observed(tables: RunTables, level: int) -> Table:
    rows = tables.observables[tables.observables["level"] == level]
    means = rows.groupby(["block", "observable"])["value"].mean().unstack()
    names = [name for name in OBSERVABLES if name in means]
    cells = [
        [str(block), *(_or_missing(means.loc[block, name], ".3g") for name in names)]
        for block in tables.exponents()["block"]
        if block in means.index
    ]
    return Table(["block", *(name.replace("_", " ") for name in names)], cells)


def _variants(tables: RunTables) -> Table:
    keys = ["quantity", "point", "denominator", "estimator"]
    spectrum = tables.spectrum
    columns = (spectrum[name] for name in ("sigma", "ci_low", "ci_high"))
    texts = [estimate_text(*numbers) for numbers in zip(*columns, strict=True)]
    ways = spectrum[keys].drop_duplicates()
    by_way = pd.Series(texts, index=pd.MultiIndex.from_frame(spectrum[[*keys, "block"]]))
    symbols = {"magnitude_share": "M", "param_share": "P"}
    rows = [
        [block, *(by_way.get((*way, block), "") for way in ways.itertuples(index=False))]
        for block in tables.exponents()["block"]
    ]
    heads = [
        f"{symbols.get(w[0], w[0])}, {w[1]} / {w[2]}, {w[3]}" for w in ways.itertuples(index=False)
    ]
    return Table(["block", *heads], [[str(cell) for cell in row] for row in rows])


def _all_nulls(tables: RunTables, nulls: list[str]) -> Table:
    head = ["block", *(text for null in nulls for text in (null, f"excess over {null}"))]
    rows = []
    for row in tables.exponents().to_dict("records"):
        cells = [row["block"]]
        for null in nulls:
            excess = f"excess_{null}"
            ends = row[f"{excess}_low"], row[f"{excess}_high"]
            cells += [number_text(row[f"sigma_{null}"]), estimate_text(row[excess], *ends)]
        rows.append(cells)
    return Table(head, rows)


def _shape(tables: RunTables) -> Table:
    head = ["block", "mean lambda", "its standard error over levels (%)"]
    head += [
        "curvature p",
        "scaling window (levels)",
        "sigma in it (selected)",
        "sigma, all levels",
    ]
    rows = [
        [
            row["block"],
            _or_missing(row["lambda_mean"], ".4f"),
            _or_missing(100 * row["lambda_sem_rel"], ".2f"),
            _or_missing(row["curvature_p"], ".3g"),
            "none" if pd.isna(row["window_first"])
            else f"{row['window_first']:.0f} to {row['window_last']:.0f}",
            number_text(row["window_sigma"]),
            number_text(row["sigma"]),
        ]
        for row in tables.exponents().to_dict("records")
    ]  # fmt: skip
    return Table(head, rows)


def _or_missing(value: float, form: str) -> str:
    return MISSING if np.isnan(value) else format(value, form)
