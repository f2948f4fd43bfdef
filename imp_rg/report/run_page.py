"""The page of a run: what its folder says, as data.

In: a run folder. Out: a `Page`; ``figures/*.png``, ``figures/*.svg`` and ``report.html``.
"""

from pathlib import Path

import pandas as pd

from imp_rg.blocks import REST
from imp_rg.imp.observables import OBSERVABLES
from imp_rg.report.caveats import caveats
from imp_rg.report.columns import Column, estimate, number, signed, significant, tabulate
from imp_rg.report.lead import lead_frame, lead_nulls, lead_table
from imp_rg.report.page import Page, Section, limits_section, write_page
from imp_rg.report.paper import paper_sections
from imp_rg.report.verdict import answers, run_verdict
from imp_rg.report.words import percent_text
from imp_rg.rg.estimate import number_text
from imp_rg.runs.agreement import agreement
from imp_rg.runs.paper_tables import differing_settings, published_for, read_paper_comparison
from imp_rg.runs.run_tables import RunTables, read_tables

QUESTION = (
    "Which blocks of the network gain, and which lose, weight magnitude as iterative magnitude "
    "pruning goes on, and is that more than pruning would do without learning?"
)

NULL_NOTES = {
    "init": "the weights of the rewind point, pruned without training",
    "oneshot": "the dense trained weights, pruned without retraining",
    "gaussian": "Gaussian weights with the scale of each tensor, in closed form",
}
"""What each null of the lead table is."""

WHOLES = {
    "prunable": "all surviving prunable weight magnitude",
    "blocks": "the surviving weight magnitude of the listed blocks",
    "all": "the weight magnitude of the whole network, tensors that are never pruned included",
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
    return write_page(make_page(folder), folder)


def make_page(folder: Path) -> Page:
    """The page of a run folder; its figures are drawn and saved.

    Raises:
      ValueError: If a file of the run folder is missing or unreadable.

    References:
      House definition.
    """
    from imp_rg.report.figures import draw_run  # Matplotlib, which words and tables do without

    tables = read_tables(folder)
    lead, *others = draw_run(tables, folder / "figures")
    paper = read_paper_comparison(folder) or published_for(tables)
    differing = [f"{name} {a} / {b}" for name, (a, b) in differing_settings(tables).items()]
    notes = [f"Settings that differ, here / there: {'; '.join(differing)}."] if differing else []
    frame = lead_frame(tables.spectrum, denominator=tables.denominator)
    limits = [str(caveat) for caveat in caveats(tables)]
    return Page(
        title=f"IMP flow: {tables.title}",
        question=QUESTION,
        answers=answers(run_verdict(tables)),
        sections=[
            Section(
                title="",
                figures=[lead],
                table=lead_table(frame),
                note=_lead_note(tables),
                name="lead",
            ),
            limits_section(limits),
            Section(title="Checks", items=_checks(tables), name="checks"),
            Section(title="More figures", figures=others),
            *(paper_sections(paper, notes=notes) if paper else []),
            *_folds(tables),
        ],
    )


def _lead_note(tables: RunTables) -> str:
    nulls = [f"{null} null: {NULL_NOTES[null]}." for null in lead_nulls(tables.spectrum)]
    density = tables.density
    return (
        f"M: the share of {WHOLES[tables.denominator]} that a block holds. From level to level it "
        "is multiplied by c^sigma, c the ratio of the densities: sigma above zero, it grows under "
        "pruning (relevant); below, it shrinks (irrelevant); marginal if the interval holds zero. "
        f"Sigma: the paper's estimator, mean over levels 0 to {len(density) - 1} (down to "
        f"{percent_text(density[-1])}), trained weights; {100 * tables.ci_level:g} % t-intervals "
        f"over seeds, of the excess within seeds. {' '.join(nulls)} Above, below, as: where the "
        f"interval of the excess lies. {REST}, if there: what is prunable outside all blocks."
    )


def _checks(tables: RunTables) -> list[str]:
    """What the run says about its own pipeline."""
    by_magnitude = tables.listed().set_index("block")["sigma"]
    by_count = tables.listed(quantity="param_share").set_index("block")["sigma"]
    checks = [f"Sigma of counts (P) beside magnitudes: {agreement(by_magnitude, by_count).text()}."]
    rows = tables.exponents()
    if "sigma_random" in rows and rows["sigma_random"].notna().any():
        sigma = rows.set_index("block")["sigma_random"]
        block = str(sigma.abs().idxmax())
        checks.append(f"Random pruning gives zero: {number_text(sigma[block])} at most ({block}).")
    sums = tables.trained.groupby(["seed", "level"])["magnitude_share"].sum()
    return [*checks, f"Shares sum to one: off by {(sums - 1).abs().max():.1e} at most."]


def _folds(tables: RunTables) -> list[Section]:
    """Everything that does not lead."""
    names = map(str, tables.exponents().columns)
    nulls = [name.removeprefix("sigma_") for name in names if name.startswith("sigma_")]
    of_nulls: dict[str, Column] = {"block": "block"}
    for null in nulls:
        of_nulls |= {null: signed(f"sigma_{null}"), f"over {null}": estimate(f"excess_{null}")}
    folds = {
        "Sigma by other estimators, points and denominators": _variants(tables),
        "All nulls, and the excess over each": tabulate(tables.exponents(), of_nulls),
        "Is it an exponential?": tabulate(tables.exponents(), SHAPE),
    }
    if len(tables.observables):
        last = tables.observables["level"].max()
        folds[f"Companion observables, level {last}, mean over seeds"] = _observed(tables, last)
    cells = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in tables.config.items()
    ]
    settings = pd.DataFrame(cells, columns=pd.Index(["setting", "value"]))
    return [
        *(Section(title=title, table=folds[title], is_folded=True) for title in folds),
        Section(title="Settings", table=settings, is_folded=True, name="settings"),
    ]


def _window_text(row) -> str:
    first, last = row["window_first"], row["window_last"]
    return "none" if pd.isna(first) else f"{first:.0f} to {last:.0f}"


SHAPE: dict[str, Column] = {
    "block": "block",
    "mean lambda": number("lambda_mean", 4),
    "its relative standard error over levels": number("lambda_sem_rel", 4),
    "curvature p": significant("curvature_p", 3),
    "scaling window (levels)": _window_text,
    "sigma in it (selected)": signed("window_sigma"),
    "sigma, all levels": signed("sigma"),
}


def _observed(tables: RunTables, level: int) -> pd.DataFrame:
    rows = tables.observables[tables.observables["level"] == level]
    means = rows.groupby(["block", "observable"])["value"].mean().unstack()
    blocks = [block for block in tables.exponents()["block"] if block in means.index]
    columns: dict[str, Column] = {"block": "block"}
    columns |= {n.replace("_", " "): significant(n, 3) for n in OBSERVABLES if n in means}
    return tabulate(means.loc[blocks].reset_index(), columns)


def _variants(tables: RunTables) -> pd.DataFrame:
    """One column for every way to measure sigma that the run has."""
    keys = ["quantity", "point", "denominator", "estimator"]
    spectrum = tables.spectrum.rename(columns={"ci_low": "sigma_low", "ci_high": "sigma_high"})
    text = tabulate(spectrum, {"block": "block", "sigma": estimate("sigma")})
    symbols = spectrum["quantity"].map({"magnitude_share": "M", "param_share": "P"})
    route = symbols + ", " + spectrum["point"] + " / " + spectrum["denominator"]
    text["route"] = route + ", " + spectrum["estimator"]
    by_route = text.pivot(index="block", columns="route", values="sigma").fillna("")
    order = text.loc[spectrum[keys].drop_duplicates().index, "route"]
    table = by_route.loc[tables.exponents()["block"], order]
    return table.reset_index().rename_axis(columns=None)
