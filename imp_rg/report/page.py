"""The page: figures, tables and words of one run in a single file.

In: a run folder. Out: ``figures/*.png``, ``figures/*.svg`` and ``report.html``, which needs nothing
else: figures and style are inside.
"""

import base64
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, StrictUndefined

from imp_rg import plots
from imp_rg.blocks import REST
from imp_rg.io.files import write_bytes
from imp_rg.report.caveats import caveats
from imp_rg.report.comparison import agreement, agreement_text, answer, published_for
from imp_rg.report.folder import RunTables, read_tables
from imp_rg.report.lead import lead_rows
from imp_rg.report.words import interval_text, number_text, percent_text


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


class Table(NamedTuple):
    """A table on the page; cells are text."""

    head: list[str]
    rows: list[list[str]]


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
    lead, *others = _write_figures(tables, folder / "figures")
    package = files("imp_rg.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number_text, "percent": percent_text}
    environment.globals["interval"] = interval_text
    html = environment.from_string(package.joinpath("page.html.j2").read_text("utf-8")).render(
        css=package.joinpath("page.css").read_text("utf-8"),
        config=tables.config,
        environment=_flatten(tables.environment),
        density=tables.density,
        ci_percent=f"{100 * tables.ci_level:g} %",
        answer=answer(tables),
        lead=lead,
        figures=others,
        lead_rows=lead_rows(tables.spectrum),
        rest=REST,
        caveats=caveats(tables),
        checks=_checks(tables),
        published=paper,
        published_agreement=paper and agreement_text(agreement(exponents["sigma"], paper.sigma)),
        exponents=exponents.to_dict("index"),
        missing=float("nan"),
        folds=_folds(tables),
    )
    write_bytes(folder / "report.html", html.encode())
    return folder / "report.html"


def _write_figures(tables: RunTables, folder: Path) -> list[Figure]:
    """Draws everything; the first figure leads."""
    flow, null_flow, ci_level = tables.trained, tables.null_flow, tables.ci_level
    paper, slope = tables.exponents(), tables.exponents("slope")
    blocks = list(paper["block"])
    pair = _opposite_blocks(tables)
    metric = str(tables.config.get("metric", "test metric (%)"))
    drawn = {
        "sigma": plots.sigma_beside_nulls(paper, ci_level=ci_level),
        "flow": plots.flow_plane(flow, null_flow, pair),
        "shares": plots.share_decay(flow, slope),
        "running": plots.running_exponent(flow, null_flow, blocks, ci_level=ci_level),
        "density": plots.density_map(flow, blocks),
        "metric": plots.metric_curve(tables.metrics, metric, ci_level=ci_level),
    }
    figures = []
    for name, figure in drawn.items():
        svg = plots.save_figure(figure, folder, name).read_bytes()
        source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        figures.append(Figure(name, *CAPTIONS[name], source))
    return figures


CAPTIONS = {
    "sigma": (
        "Exponent of every block beside its nulls",
        "Left: measured sigma (black, with its interval) above the nulls. Right: measured minus "
        "null, from differences within each seed. An interval that crosses zero means that the "
        "null explains the block.",
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


def _opposite_blocks(tables: RunTables) -> tuple[str, str]:
    """The blocks whose shares grow and shrink fastest; the outermost ones without exponents."""
    rows = tables.listed()
    sigma = rows.set_index("block")["sigma"].dropna()
    if len(sigma) < 2:
        return rows["block"].iloc[0], tables.exponents()["block"].iloc[-1]
    return str(sigma.idxmax()), str(sigma.idxmin())


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
    return {
        "Other estimators, points and denominators (sigma with interval)": _variants(tables),
        "All nulls (sigma, and excess with interval)": _all_nulls(tables, nulls),
        "Is it an exponential? (curvature, scaling window, scatter over levels)": _shape(tables),
    }


def _variants(tables: RunTables) -> Table:
    keys = ["quantity", "point", "denominator", "estimator"]
    spectrum = tables.spectrum
    texts = [
        f"{number_text(s)} {interval_text(low, high)}"
        for s, low, high in zip(
            spectrum["sigma"], spectrum["ci_low"], spectrum["ci_high"], strict=True
        )
    ]
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
            interval = interval_text(row[f"{excess}_low"], row[f"{excess}_high"])
            cells += [number_text(row[f"sigma_{null}"]), f"{number_text(row[excess])} {interval}"]
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
            f"{row['lambda_mean']:.4f}",
            f"{100 * row['lambda_sem_rel']:.2f}",
            f"{row['curvature_p']:.3g}",
            "none" if pd.isna(row["window_first"])
            else f"{row['window_first']:.0f} to {row['window_last']:.0f}",
            number_text(row["window_sigma"]),
            number_text(row["sigma"]),
        ]
        for row in tables.exponents().to_dict("records")
    ]  # fmt: skip
    return Table(head, rows)


def _flatten(environment: dict) -> dict[str, str]:
    """Nested entries as one line each."""
    return {
        name: ", ".join(f"{k} {v}" for k, v in value.items())
        if isinstance(value, dict)
        else str(value)
        for name, value in environment.items()
    }
