"""Tables of the page of a vision experiment, as text.

In: tables of `experiments.studies.vision.tables`. Out: heads and rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.studies.vision.cells import init_text
from experiments.studies.vision.distances import ALL, INIT
from experiments.studies.vision.tables import start_text
from imp_rg.plots.style import Frame
from imp_rg.report.words import MISSING, decimal_text, number_text

INDENT = "\u2003"
"""An em space: browsers drop ordinary ones at the start of a cell."""

NULLS = (INIT, "oneshot", "gaussian")

MEASURES = {
    "sigma": "sigma",
    INIT: f"{INIT} null",
    "oneshot": "oneshot null",
    f"excess_{INIT}": f"sigma − {INIT}",
    f"beyond_{INIT}": f"sigma beyond {INIT}",
}
"""Measures of distances that the page shows, and their names."""

CLASSES = {"relevant": "+", "irrelevant": "−", "marginal": "0", "undetermined": "?"}

Rows = tuple[list[str], list[list[str]]]


def lead_rows(sigma: Frame) -> Rows:
    """As the paper's Table 2: each cell, then its nulls, its excess and its published row."""
    blocks = list(dict.fromkeys(sigma["block"]))
    rows = []
    for (task, init), of_cell in sigma.groupby(["task", "init"], sort=False):
        by_block: Any = of_cell.set_index("block").reindex(blocks)
        values = by_block.to_dict("records")
        ours = [half_width_text(row["sigma"], row["high"]) for row in values]
        rows.append([f"{task} from {init_text(init)}", *ours, _verdict(of_cell)])
        for null in NULLS[:2]:
            if f"sigma_{null}" in of_cell:
                rows.append(_row(f"{null} null", [row[f"sigma_{null}"] for row in values]))
        if f"excess_{INIT}" in of_cell:
            name = f"excess_{INIT}"
            beyond = [half_width_text(row[name], row[f"{name}_high"]) for row in values]
            rows.append([f"{INDENT}excess over {INIT}", *beyond, ""])
        if of_cell["published"].notna().any():
            name = f"paper: {of_cell['published_row'].iloc[0]}"
            rows.append(_row(name, [row["published"] for row in values]))
    return ["sigma", *blocks, "verdict"], rows


def _verdict(of_cell: Frame) -> str:
    """Why there is none, or the class of each block as a sign."""
    reason = of_cell["withheld"].iloc[0]
    if reason:
        return f"withheld: {reason}"
    return " ".join(CLASSES[relevance] for relevance in of_cell["relevance"])


def _row(name: str, values: Sequence[float]) -> list[str]:
    return [f"{INDENT}{name}", *map(number_text, values), ""]


def half_width_text(value: float, high: float) -> str:
    """Value and half of its interval, where it has one."""
    half = "" if np.isnan(high) else f" ± {decimal_text(high - value, 3)}"
    return f"{number_text(value)}{half}"


def sigma_rows(sigma: Frame) -> Rows:
    """One row a cell, block and window."""
    nulls = [null for null in NULLS if f"sigma_{null}" in sigma]
    rows = []
    for row in sigma.to_dict("records"):
        cells = [f"{row['task']} from {init_text(row['init'])}", row["block"], row["window"]]
        cells += [half_width_text(row["sigma"], row["high"])]
        for null in nulls:
            name = f"excess_{null}"
            cells += [number_text(row[f"sigma_{null}"])]
            cells += [half_width_text(row[name], row[f"{name}_high"])] if null in NULLS[:2] else []
        rows.append([*cells, number_text(row["published"]), row["verdict"]])
    heads = [[null, f"excess over {null}"] if null in NULLS[:2] else [null] for null in nulls]
    return ["cell", "block", "levels", "sigma", *sum(heads, []), "paper", "verdict"], rows


def distance_rows(distances: Frame) -> Rows:
    """One row a pair and place, one column a measure; pairs of tasks come first."""
    measures = [name for name in MEASURES if name in set(distances["measure"])]
    rows = []
    keys = ["task_a", "task_b", "init_a", "init_b", "block"]
    ordered = distances.sort_values("between", kind="stable", ascending=False)
    for _, of_place in ordered.groupby(keys, sort=False):
        by_measure = {row["measure"]: row for row in of_place.to_dict("records")}
        first = by_measure["sigma"]
        cells = [_interval(by_measure.get(measure)) for measure in measures]
        p = f"{decimal_text(first['p'], 2)} (≥ {decimal_text(first['p_smallest'], 2)})"
        rows.append([*_place(first), *cells, p])
    names = [MEASURES[measure] for measure in measures]
    return ["between", "start", "over", *names, "p of sigma"], rows


def _place(row: dict[Any, Any]) -> list[str]:
    tasks = f"{row['task_a']}, {row['task_b']}" if row["between"] == "tasks" else row["task_a"]
    return [tasks, start_text(row), "all blocks" if row["block"] == ALL else row["block"]]


def _interval(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return MISSING
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{decimal_text(row['distance'], 3)}{interval}"


def change_rows(changes: Frame) -> Rows:
    """One row a pair of tasks, start, place and measure."""
    rows = []
    shown = changes[changes["measure"].isin(list(MEASURES))]
    for row in shown.sort_values("block", kind="stable").to_dict("records"):
        distances = [decimal_text(row[name], 3) for name in ("scratch", "pretrained")]
        change = half_width_text(row["change"], row["high"])
        found = f"withheld (interval: {row['found']})" if row["withheld"] else row["found"]
        tasks, start, over = _place(row)
        name = f"{MEASURES[row['measure']]}, {over}"
        rows.append([name, *distances, change, found, tasks, start])
    head = ["distance of", "from scratch", "pre-trained", "closer by", "closer?"]
    return [*head, "tasks", "pre-trained by"], rows


def claim_rows(claims: Frame) -> Rows:
    """Rows of one claim."""
    rows = []
    for row in claims.to_dict("records"):
        found = f"withheld (intervals: {row['found']})" if row["withheld"] else row["found"]
        rows.append([row["subject"], row["source"], found, row["numbers"]])
    return ["of", "tried on", "verdict", "numbers"], rows


def accuracy_rows(accuracy: Frame) -> Rows:
    """Dense, last and best level of each cell."""
    rows = []
    for (task, init), of_cell in accuracy.groupby(["task", "init"], sort=False):
        ends = of_cell.iloc[[0, -1]].to_dict("records")
        best: Any = of_cell.loc[of_cell["accuracy"].fillna(-1).idxmax()]
        cells = [_accuracy(row) for row in (*ends, best)]
        rows.append([f"{task} from {init_text(init)}", cells[0], *cells[1:]])
    return ["cell", "dense", "last level", "best level"], rows


def _accuracy(row: Mapping[Any, Any]) -> str:
    spread = "" if np.isnan(row["sd"]) else f" ± {row['sd']:.1f}"
    return f"{decimal_text(row['accuracy'], 1)}{spread} % at {100 * row['density']:.3g} % kept"
