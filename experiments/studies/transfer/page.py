"""The page of a transfer experiment: verdict, matrix, predictors beside controls, limits.

In: the tables of its folder (`findings`). Out: figures, and a `Page`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.transfer.findings import EXPLAINS
from experiments.studies.transfer.predictors import CONTROL, PREDICTORS, TITLES
from imp_rg.plots import save_figure
from imp_rg.plots import transfer as plots
from imp_rg.report.columns import number, signed, significant, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.report.words import count_text, percent_text
from imp_rg.rg.estimate import MISSING, Estimate, number_text
from imp_rg.rg.prediction import MIN_TASKS, SIGNIFICANCE
from imp_rg.rg.ticket_transfer import MARGIN, SATURATED_BELOW
from imp_rg.rg.universality import seeds_needed
from imp_rg.runs.files import read_csv, read_json

QUESTION = (
    "Does the flow of iterative magnitude pruning tell which tickets transfer between tasks, and "
    "does it tell more than how many weights each layer keeps?"
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
MINIMAL = ("minimal_density", "directed")
NAMES = ("cells", "outcomes", "predictors", "leave_one_out", "minimal_density", "distances",
         "verdicts", "told_apart")  # fmt: skip

Tables = Mapping[str, pd.DataFrame]


def make_page(folder: Path) -> Page:
    """Draws the figures and says what the tables of a folder hold."""
    settings = read_json(folder / "config.json")
    tables = {name: read_csv(folder / f"{name}.csv") for name in NAMES}
    counts = count_outcomes(tables["outcomes"])
    lead = lead_level(counts)
    drawn = _draw(tables, list(settings["tasks"]), lead)
    figures = {
        name: [(save_figure(figure, folder / "figures", name), CAPTIONS[name])]
        for name, figure in drawn.items()
    }
    return Page(
        title="Which tickets transfer",
        question=QUESTION,
        answers=_answers(tables, counts, lead),
        sections=[
            _matrix_section(counts, figures["matrix"]),
            _score_section(
                tables, lead, [*figures.get("predictors", []), *figures.get("scatter", [])]
            ),
            _left_out_section(tables["leave_one_out"]),
            _minimal_section(tables["minimal_density"], figures.get("minimal_density", [])),
            Section(title="Metric against density", figures=figures["metric"]),
            Section(title="Limits", items=list_limits(tables, counts, settings)),
        ],
    )


def count_outcomes(outcomes: pd.DataFrame) -> pd.DataFrame:
    """What the cells off the diagonal add up to, a row per level.

    Columns: level, density, cells, counted, saturated, unmeasured, transfer (of those that count),
    and the means of minus_own, minus_dense, minus_random, minus_reinit over those that count.
    """
    rows = []
    for level, part in outcomes[outcomes["source"] != outcomes["target"]].groupby("level"):
        cells = part[part["quantity"] == "minus_own"]
        counted, saturated = cells["counted"], cells["saturated"]
        mean = part[part["counted"]].groupby("quantity")["mean"].mean()
        names = [f"minus_{name}" for name in ("own", "dense", "random", "reinit")]
        rows.append({
            "level": level,
            "density": cells["density"].iloc[0],
            "cells": len(cells),
            "counted": counted.sum(),
            "saturated": saturated.sum(),
            "unmeasured": (~counted & ~saturated).sum(),
            "transfer": (cells["transfers"] & counted).sum(),
            **mean.reindex(names).to_dict(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def lead_level(counts: pd.DataFrame) -> int:
    """The level that figures of one level show: most cells count there, the densest of such."""
    return int(counts["level"].iloc[counts["counted"].argmax()])


def scatter_points(tables: Tables, level: int) -> pd.DataFrame:
    """Distance and loss of every cell that counts at a level, a row per predictor."""
    outcomes, distances = tables["outcomes"], tables["distances"]
    shown = outcomes[(outcomes["quantity"] == "minus_own") & outcomes["counted"]]
    loss = shown.assign(loss=-shown["mean"], low=-shown["high"], high=-shown["low"])
    of_level = distances[distances["level"] == level].dropna(subset="distance")
    names = ["level", "source", "target"]
    return of_level.merge(loss[[*names, "loss", "low", "high", "transfers"]], on=names)


def _draw(tables: Tables, tasks: list[str], lead: int) -> dict[str, plots.Figure]:
    drawn = {"matrix": plots.transfer_matrix(tables["outcomes"], tasks)}
    points = scatter_points(tables, lead)
    if len(points):
        shown = {name: title for name, title in TITLES.items() if name in set(points["predictor"])}
        losses = _of(tables["predictors"], "loss", "directed")
        drawn["predictors"] = plots.predictor_scores(losses, TITLES)
        drawn["scatter"] = plots.predictor_scatter(points, shown)
    keys = ["target", "source", "kind", "level"]
    means = tables["cells"].groupby(keys)[["density", "test_metric"]].mean().reset_index()
    drawn["metric"] = plots.metric_by_density(means, tasks)
    tickets = tables["minimal_density"][tables["minimal_density"]["kind"] == "ticket"]
    if len(tickets):
        drawn["minimal_density"] = plots.minimal_density_map(tickets, tasks)
    return drawn


def _answers(tables: Tables, counts: pd.DataFrame, lead: int) -> list[str]:
    """The verdict, and what it rests on."""
    (at,) = counts[counts["level"] == lead].to_dict("records")
    measured = (
        f"At level {lead} ({percent_text(at['density'])} of the weights kept) {at['counted']} of "
        f"{at['cells']} cells count and {at['saturated']} are saturated."
    )
    if not at["counted"]:
        return [
            "Nothing can be said of prediction: no cell counts. Where a random mask loses less "
            f"than {SATURATED_BELOW:g} points to the dense network, any ticket transfers; sparser "
            "levels or harder tasks are needed.",
            measured,
        ]
    verdicts = _of(tables["verdicts"], "loss", "directed")
    explaining = verdicts.loc[verdicts["verdict"] == EXPLAINS, "predictor"].map(TITLES)
    who = "No predictor is shown to explain the points that a transferred ticket loses"
    if len(explaining):
        who = "The points that a transferred ticket loses are in part explained by "
        who += ", ".join(explaining)
    scores = _of(tables["predictors"], "loss", "directed")
    control = scores[(scores["predictor"] == CONTROL) & (scores["level"] == lead)].iloc[0]
    chance = "beyond chance" if control["p_value"] < SIGNIFICANCE else "not beyond chance"
    return [
        f"{who}, beyond what its control explains. The control alone, which knows only how many "
        f"weights each block keeps, has Spearman {number_text(control['spearman'], 2)} at level "
        f"{lead}: {chance}.",
        f"{measured} {at['transfer']} of those that count transfer. On average a ticket is "
        f"{at['minus_own']:+.1f} points from the target's own and {at['minus_random']:+.1f} from a "
        "random mask of the same layer-wise densities.",
    ]


def _of(table: pd.DataFrame, outcome: str, version: str) -> pd.DataFrame:
    """Rows of ``predictors.csv`` or ``verdicts.csv``."""
    return table[(table["outcome"] == outcome) & (table["version"] == version)]


def _percent(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: MISSING if pd.isna(row[name]) else percent_text(row[name])


def _matrix_section(counts: pd.DataFrame, figures: list) -> Section:
    columns = {
        "level": "level",
        "kept": _percent("density"),
        "cells that count": "counted",
        "saturated": "saturated",
        "transfer": "transfer",
        "minus own": number("minus_own", 1),
        "minus dense": number("minus_dense", 1),
        "minus random mask": number("minus_random", 1),
        "minus re-initialised": number("minus_reinit", 1),
    }
    return Section(
        title="The transfer matrix",
        figures=figures,
        table=tabulate(counts, columns),
        note="Means over the cells that count, in points. A cell transfers if it loses no more "
        f"than {MARGIN:g} point, or two standard errors if this is more, to the target's own "
        f"ticket. It is saturated if a random mask loses less than {SATURATED_BELOW:g} points to "
        "the dense network. Every cell with its interval is in outcomes.csv.",
    )


def _score_section(tables: Tables, lead: int, figures: list) -> Section:
    """Predictors beside their controls at one level, and what they come to over all of them."""
    scores = _of(tables["predictors"], "loss", "directed")
    rows = scores[scores["level"] == lead]
    for outcome, version in (("loss", "directed"), ("loss", "symmetrised"), MINIMAL):
        verdicts = _of(tables["verdicts"], outcome, version).set_index("predictor")["verdict"]
        rows = rows.assign(**{f"{outcome} {version}": rows["predictor"].map(verdicts)})
    columns = {
        "predictor": lambda row: TITLES[row["predictor"]],
        "distance from source to target": lambda row: PREDICTORS[row["predictor"]].meaning,
        "its control": lambda row: TITLES[row["control"]],
        "cells": "num_cells",
        "Spearman": signed("spearman", 2),
        "p": significant("p_value"),
        "p, Holm": significant("p_holm"),
        "AUROC": number("auroc", 2),
        "minus control": lambda row: Estimate(
            row["difference"], row["ci_low"], row["ci_high"]
        ).text(2),
        "verdict": "verdict",
        "over all levels": "loss directed",
        "both directions averaged": "loss symmetrised",
        "of the lowest density": " ".join(MINIMAL),
    }
    return Section(
        title=f"Predictors and controls at level {lead}",
        figures=figures,
        table=tabulate(rows, columns),
        note="p by Mantel's test, one-sided: the chance of so large a correlation if tasks are "
        "renamed; the smallest possible one is in predictors.csv, as are all levels. AUROC: the "
        "chance that a ticket which transfers comes from nearer than one which does not. Intervals "
        "are bootstraps over tasks. No power: the interval holds 0. No verdict: it needs "
        f"{MIN_TASKS} tasks with a cell that counts and a distance that varies. Over all levels, "
        "the best one speaks.",
    )


def _left_out_section(out: pd.DataFrame) -> Section:
    of_all = out[(out["task"] == "all") & out["accuracy"].notna()]
    accuracy = of_all.pivot(index="predictor", columns="level", values="accuracy")
    accuracy = accuracy.reindex([name for name in TITLES if name in accuracy.index]).rename(TITLES)
    if len(accuracy):
        majority = of_all.groupby("level")["majority"].first()
        accuracy.loc["always the more frequent answer"] = majority
    columns = {f"level {level}": _percent(level) for level in accuracy.columns}
    rows = accuracy.rename_axis("on").reset_index()
    return Section(
        title="Will it transfer? With each task left out",
        text=[] if len(accuracy) else ["Nothing to predict: no cell counts."],
        table=tabulate(rows, {"right with a threshold on": "on", **columns}),
        note="The threshold is fitted on cells without the task. The last row is told which answer "
        "is the more frequent one.",
    )


def _minimal_section(minimal: pd.DataFrame, figures: list) -> Section:
    names = {"ticket": "tickets", "random": "random masks", "reinit": "re-initialised"}
    counted = minimal.assign(finite=minimal["density"].replace(np.inf, np.nan)).groupby("kind")
    pairs = counted.agg(
        pairs=("density", "size"), transfer=("finite", "count"), median=("finite", "median")
    )
    columns = {
        "masks": lambda row: names[row["kind"]],
        "pairs": "pairs",
        "transfer at some level": "transfer",
        "median of their lowest density": _percent("median"),
    }
    return Section(
        title="Lowest density that transfers",
        text=[] if len(minimal) else ["None was tried."],
        figures=figures,
        table=tabulate(pairs.reindex([*names]).dropna(how="all").reset_index(), columns),
        note="Only levels count at which the target's own ticket keeps half of what the dense "
        "network gains over the worst random mask or re-initialised ticket: where it learns "
        "nothing, any other is as good. For its score, shares of all densities and masks of the "
        "sparsest compared level are taken.",
    )


def list_limits(tables: Tables, counts: pd.DataFrame, settings: Mapping[str, Any]) -> list[str]:
    """What limits the result: what always does, then what these data do."""
    pairs = tables["told_apart"]
    num_apart = int((pairs["verdict"] == "different").sum())
    apart = (
        f"Exponents of {num_apart} of {count_text(len(pairs), 'pair')} of tasks are told apart "
        f"(adjusted p < {SIGNIFICANCE:g}); distances of the others are within the scatter of seeds."
    )
    if (pairs["verdict"] == "no verdict").all():
        apart = (
            "Whether exponents of the tasks differ at all cannot be tested: "
            f"{count_text(len(pairs), 'pair')} need {seeds_needed(len(pairs))} seeds each."
        )
    unmeasured = counts[counts["unmeasured"] > 0]
    missing = ", ".join(f"{n} at level {k}" for k, n in unmeasured[["level", "unmeasured"]].values)
    found = [
        "Tasks are the replicates of every statement on prediction: p-values rename tasks, "
        "intervals sample them. Cells of one row share a ticket, cells of one column share a task.",
        "Levels of one experiment share sources, flows and dense networks: that a predictor holds "
        "at two of them is no independent confirmation. Holm's correction runs over the predictors "
        "within a level, not over levels.",
        "Exponents are the paper's estimator over all levels of a source's flow, those beyond the "
        "compared one included, from trained weights of the listed blocks.",
        "Correlation says that an order is predicted, not why; variants of one data set share more "
        "than their flows show.",
        apart,
    ]
    if settings["seeds"] == 1:
        found.append(
            "One seed: no interval over seeds exists, and whether a ticket transfers is the fixed "
            f"margin of {MARGIN:g} point."
        )
    return [*found, f"Cells that were not measured: {missing}."] if missing else found
