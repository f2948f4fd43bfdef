"""The page of a transfer experiment: verdict, matrix, predictors beside controls, limits.

In: an experiment folder. Out: its tables, ``figures`` and ``report.html``, which needs no other
file.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from experiments.studies.transfer.predictors import PREDICTORS
from experiments.studies.transfer.tables import TransferTables, make_tables, write_tables
from experiments.studies.transfer.words import answers, limits, verdict
from imp_rg.plots import save_figure
from imp_rg.plots import transfer as plots
from imp_rg.plots.style import Frame
from imp_rg.report.page import Section, write_page
from imp_rg.report.words import count_text, decimal_text, percent_text
from imp_rg.rg.ticket_transfer import SATURATED_BELOW
from imp_rg.runs.files import read_json

TITLES = {name: predictor.title for name, predictor in PREDICTORS.items()}
QUESTION = (
    "Does the flow of iterative magnitude pruning tell which tickets transfer between tasks, and "
    "does it tell more than how many weights each layer keeps?"
)
VIABLE = (
    "Only levels count at which the target's own ticket keeps half of what the dense network gains "
    "over the worst random mask or re-initialised ticket: where the own ticket learns nothing, any "
    "other is as good as it."
)
CAPTIONS = {
    "matrix": "Test metric of each transferred ticket minus that of the target's own ticket, in "
    "points, mean over seeds.",
    "predictors": "Left: how well each distance orders the losses. Right: what is left of it above "
    "its control. Controls in grey; no predictor whose interval crosses zero has explained "
    "anything.",
    "scatter": "Each cell that counts, with its interval over seeds; the controls last.",
    "metric": "Means over seeds; random masks and re-initialised tickets also over sources.",
    "minimal_density": "Density (%) down to which a ticket transfers. ≤: to the sparsest level "
    "tried. ?: transfers again further down, so noise decides. White: no level has a ticket.",
}


def report(folder: Path, console: Console) -> Path:
    """Writes tables, figures and page of an experiment, and prints the verdict.

    Args:
      folder: With ``config.json``, ``cells.csv`` and the run folders below ``sources``.
      console: Where the verdict goes.

    Returns:
      Path of ``report.html``.

    Raises:
      ValueError: In one line, if a table or a source is missing or does not fit.

    References:
      House definition.
    """
    ci_level = read_json(folder / "config.json").get("ci_level", 0.95)
    tables = make_tables(folder, ci_level=ci_level)
    write_tables(folder, tables)
    console.print(verdict(tables))
    return write_transfer_page(folder, tables)


def write_transfer_page(folder: Path, tables: TransferTables) -> Path:
    """Draws the figures and writes ``report.html``; returns its path."""
    drawn = {name: save_figure(x, folder / "figures", name) for name, x in _draw(tables).items()}
    figures = {name: [(path, CAPTIONS[name])] for name, path in drawn.items()}
    sections = [
        _cells(tables, figures),
        *_scores(tables, figures),
        _left_out(tables),
        _minimal(tables, figures),
        Section(title="Metric against density", figures=figures.get("metric", [])),
        _definitions(),
        Section(title="Limits", text=limits(tables)),
        _settings(folder),
    ]
    return write_page(
        folder / "report.html",
        title="Which tickets transfer",
        question=QUESTION,
        answers=answers(tables),
        sections=sections,
    )


def _draw(tables: TransferTables) -> dict[str, plots.Figure]:
    tasks = tables.cells.tasks
    drawn = {"matrix": plots.transfer_matrix(tables.outcomes, tasks)}
    points = scatter_points(tables)
    if len(points):
        shown = {name: title for name, title in TITLES.items() if name in set(points["predictor"])}
        losses = _scores_of(tables, "loss", "directed")
        drawn["predictors"] = plots.predictor_scores(losses, TITLES)
        drawn["scatter"] = plots.predictor_scatter(points, shown)
    drawn["metric"] = plots.metric_by_density(_means(tables.cells.table), tasks)
    tickets = tables.minimal[tables.minimal["kind"] == "ticket"]
    if len(tickets):
        drawn["minimal_density"] = plots.minimal_density_map(tickets, tasks)
    return drawn


def scatter_points(tables: TransferTables) -> Frame:
    """Distance and loss of every cell that counts at the lead level, a row a predictor."""
    level, tasks = tables.lead_level, tables.cells.tasks
    outcome = tables.at[level]
    rows = []
    for name, distance in tables.predictions.distances[level].items():
        for cell in zip(*np.nonzero(outcome.counted & ~np.isnan(distance)), strict=True):
            source, target = cell
            rows.append({
                "predictor": name,
                "source": tasks[source],
                "target": tasks[target],
                "distance": distance[cell],
                "loss": outcome.loss[cell],
                "low": -outcome.minus_own.high[cell],
                "high": -outcome.minus_own.low[cell],
                "transfers": bool(outcome.transfers[cell]),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _means(table: Frame) -> Frame:
    """Mean over seeds of every kind of network."""
    keys = ["target", "source", "kind", "level"]
    return table.groupby(keys)[["density", "test_metric"]].mean().reset_index()


def _cells(tables: TransferTables, figures: dict[str, list]) -> Section:
    rows = []
    for level, outcome in tables.at.items():
        of_level = tables.outcomes[tables.outcomes["level"] == level]
        mean = of_level[of_level["counted"]].groupby("quantity")["mean"].mean()
        means = [
            decimal_text(float(mean.get(f"minus_{other}", np.nan)), 1)
            for other in ("own", "dense", "random", "reinit")
        ]
        num_near = int((outcome.transfers & outcome.counted).sum())
        density = percent_text(tables.cells.density.get(level, np.nan))
        counts = [outcome.num_counted, outcome.num_saturated, num_near]
        rows.append([str(level), density, *map(str, counts), *means])
    return Section(
        title="The transfer matrix",
        figures=figures["matrix"],
        head=("level", "kept", "cells that count", "saturated", "transfer", "minus own",
              "minus dense", "minus random mask", "minus re-initialised"),
        rows=rows,
        note=f"Means over the cells that count, in points. A cell is saturated if a random mask "
        f"loses less than {SATURATED_BELOW:g} points to the dense network; every cell with its "
        "interval is in outcomes.csv.",
    )  # fmt: skip


def _scores(tables: TransferTables, figures: dict[str, list]) -> list[Section]:
    """Predictors beside their controls: both versions at the lead level."""
    if "scatter" not in figures:
        return []
    level = tables.lead_level
    sections = []
    for version, title in (
        ("directed", f"Predictors and controls at level {level}: every source and target"),
        ("symmetrised", f"The same at level {level}: pairs, both directions averaged"),
    ):
        scores = _scores_of(tables, "loss", version)
        section = Section(
            title=title,
            figures=figures["predictors"] + figures["scatter"] if version == "directed" else (),
            head=SCORE_HEAD,
            rows=_score_cells(scores[scores["level"] == level]),
            note=SCORE_NOTE if version == "directed" else "",
        )
        sections.append(section)
    return sections


SCORE_HEAD = (
    "predictor", "cells", "Spearman", "p", "p, Holm", "AUROC", "minus control",
    "95 % interval", "verdict",
)  # fmt: skip
SCORE_NOTE = (
    "p by Mantel's test, one-sided: the chance of so large a correlation if tasks are renamed; the "
    "smallest possible one is in predictors.csv, as are all levels. "
    "AUROC: the chance that a ticket which transfers comes from nearer than one which does not. "
    "The interval is a bootstrap over tasks. Controls are compared with the P profile."
)


def _score_cells(scores: Frame) -> list[list[str]]:
    rows = []
    for row in scores.to_dict("records"):
        interval = f"[{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]"
        numbers = [
            f"{row['spearman']:+.2f}",
            *(f"{row[name]:.2g}" for name in ("p_value", "p_holm")),
            f"{row['auroc']:.2f}",
            f"{row['difference']:+.2f}",
            "" if np.isnan(row["ci_low"]) else interval,
        ]
        cells = ["" if "nan" in text else text for text in numbers]
        rows.append([TITLES[row["predictor"]], str(row["num_cells"]), *cells, row["verdict"]])
    return rows


def _left_out(tables: TransferTables) -> Section:
    out = tables.predictions.leave_one_out
    of_all = out[(out["task"] == "all") & out["accuracy"].notna()]
    levels = sorted(of_all["level"].unique())
    accuracy = of_all.pivot(index="predictor", columns="level", values="accuracy")
    majority = of_all.groupby("level")["majority"].first()
    rows = [
        [TITLES[name], *(_share(accuracy[level][name]) for level in levels)]
        for name in PREDICTORS
        if name in accuracy.index
    ]
    if rows:
        rows.append(["always the more frequent answer", *(_share(majority[n]) for n in levels)])
    return Section(
        title="Will it transfer? With each task left out",
        text=[] if rows else ["Nothing to predict: no cell counts."],
        head=("right with a threshold on", *(f"level {level}" for level in levels)),
        rows=rows,
        note="The threshold is fitted on cells without the task. The last row is told which answer "
        "is the more frequent one.",
    )


def _minimal(tables: TransferTables, figures: dict[str, list]) -> Section:
    kinds = {"ticket": "tickets", "random": "random masks", "reinit": "re-initialised"}
    counts = []
    for kind, name in kinds.items():
        rows = tables.minimal[tables.minimal["kind"] == kind]
        if len(rows):
            finite = rows.loc[np.isfinite(rows["density"]), "density"]
            median = f", median {percent_text(finite.median())}" if len(finite) else ""
            tried = count_text(int(rows["num_levels"].max()), "level")
            counts.append(
                f"{name} {len(finite)} of {len(rows)} pairs{median} (up to {tried} tried)"
            )
    return Section(
        title="Lowest density that transfers",
        text=[VIABLE, f"Transfer at the densest level or further: {'; '.join(counts)}."]
        if counts
        else ["None was tried."],
        figures=figures.get("minimal_density", []),
        head=SCORE_HEAD,
        rows=_score_cells(_scores_of(tables, "minimal_density", "directed")),
        note="From all levels that were trained and count; random masks and re-initialised tickets "
        "are held to the same mark, the target's own ticket. Distances: shares at all densities, "
        "masks at the sparsest compared level, the others as above.",
    )


def _definitions() -> Section:
    return Section(
        title="Predictors",
        head=("predictor", "distance from source to target", "its control"),
        rows=[
            [predictor.title, predictor.meaning, TITLES.get(predictor.control or "", "")]
            for predictor in PREDICTORS.values()
        ],
    )


def _settings(folder: Path) -> Section:
    settings = read_json(folder / "config.json")
    rows = [[name, _setting_text(value)] for name, value in settings.items()]
    return Section(title="Settings", head=("setting", "value"), rows=rows)


def _setting_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _scores_of(tables: TransferTables, outcome: str, version: str) -> Frame:
    scores = tables.predictions.scores
    return scores[(scores["outcome"] == outcome) & (scores["version"] == version)]


def _share(value: float) -> str:
    return "" if np.isnan(value) else percent_text(value)
