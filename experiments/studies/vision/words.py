"""What the tables of a vision experiment say, in sentences.

In: tables of `experiments.studies.vision.tables`, of one window. Out: answers and limits.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.vision.cells import FLOORS, CellRun, base_of
from experiments.studies.vision.config import SCRATCH
from experiments.studies.vision.distances import ALL, HELD, INIT, NOT_DECIDED, NOT_HELD
from experiments.studies.vision.tables import start_text
from imp_rg.plots.style import Frame
from imp_rg.report.published_beside import agreement, agreement_text
from imp_rg.report.words import count_text, decimal_text, number_text

RESNET = "resnet50"
"""The network of the paper's Tables 2 and 7."""

CLOSER = {
    HELD: "closer",
    NOT_HELD: "farther apart",
    NOT_DECIDED: "not shown to be closer or farther apart",
}


def answers(tables: Mapping[str, Frame]) -> list[str]:
    """The verdict first, then what stands around it; tables of one window."""
    sigma = tables["sigma"]
    return [
        *withheld_sentences(sigma),
        *closer_sentences(tables["changes"]),
        *distance_sentences(tables["distances"], tables["changes"]),
        *claim_sentences(tables["claims"]),
        *excess_sentences(sigma),
        *published_sentences(sigma),
    ]


def withheld_sentences(sigma: Frame) -> Iterator[str]:
    """Which cells get no verdict."""
    found = []
    for reason, rows in sigma[sigma["withheld"] != ""].groupby("withheld", sort=False):
        cells = rows[["task", "init"]].drop_duplicates().agg(" from ".join, axis=1)
        found.append(f"{', '.join(cells)}: {reason}")
    if found:
        yield f"No sigma verdict for {'; '.join(found)}. The numbers are shown as what they are."


def closer_sentences(changes: Frame) -> Iterator[str]:
    """Does pre-training bring tasks closer, and beyond the null of the rewind weights?"""
    of_profile = changes[changes["block"] == ALL]
    for _, rows in of_profile.groupby(["task_a", "task_b", "init_a", "init_b"], sort=False):
        by_measure = {row["measure"]: row for row in rows.to_dict("records")}
        yield _closer_sentence(by_measure)


def _closer_sentence(rows: Mapping[Any, Any]) -> str:
    sigma = rows["sigma"]
    pair = f"{sigma['task_a']} and {sigma['task_b']}"
    sentence = f"No verdict ({sigma['withheld']}), by the intervals: " if sigma["withheld"] else ""
    sentence += (
        f"Pre-trained ({start_text(sigma)}), {pair} are {CLOSER[sigma['found']]} in sigma than "
        f"from {SCRATCH}: {_change_text(sigma)}."
    )
    if INIT in rows:
        init = rows[INIT]
        sentence += (
            f" In the init null, which knows only the weights that levels start from, they are "
            f"{CLOSER[init['found']]}: {_change_text(init)}. What sigma changes beyond it: "
            f"{_interval_text(rows[f'beyond_{INIT}'])}."
        )
    return sentence


def _change_text(row: Mapping[str, Any]) -> str:
    return (
        f"distance {decimal_text(row['scratch'], 3)} to {decimal_text(row['pretrained'], 3)}, "
        f"closer by {_interval_text(row)}"
    )


def _interval_text(row: Mapping[str, Any]) -> str:
    if np.isnan(row["low"]):
        return f"{number_text(row['change'])} (no interval)"
    return f"{row['change']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def distance_sentences(distances: Frame, changes: Frame) -> Iterator[str]:
    """Distances between tasks where there is no pre-training, or none from scratch, to compare."""
    if len(changes) or distances.empty:
        return
    rows = distances[(distances["between"] == "tasks") & (distances["block"] == ALL)]
    for row in rows[rows["measure"] == "sigma"].to_dict("records"):
        interval = "" if np.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
        yield (
            f"From {start_text(row)}, {row['task_a']} and {row['task_b']} are {row['distance']:.3f}"
            f"{interval} apart in sigma (root mean square over blocks)."
        )


def claim_sentences(claims: Frame) -> Iterator[str]:
    """How often each claim of the paper held, on sigma and on the nulls."""
    for claim, rows in claims.groupby("claim", sort=False):
        found = []
        for source, of_source in rows.groupby("source", sort=False):
            counts = of_source["found"].value_counts()
            outcomes = [f"{state} in {counts[state]}" for state in CLOSER if state in counts]
            found.append(f"{source}: {', '.join(outcomes)} of {len(of_source)}")
        reasons = [reason for reason in rows["withheld"].unique() if reason]
        withheld = f" By the intervals alone, no verdict: {'; '.join(reasons)}." if reasons else ""
        yield f"Claim {claim}: {'; '.join(found)}.{withheld}"


def excess_sentences(sigma: Frame) -> Iterator[str]:
    """Is sigma more than its nulls?"""
    rows = sigma.dropna(subset=["low"])
    if rows.empty:
        yield "One seed gives no interval: whether sigma differs from its nulls cannot be said."
        return
    for null in (INIT, "oneshot"):
        name = f"excess_{null}"
        if name not in rows:
            continue
        num = int(((rows[f"{name}_low"] > 0) | (rows[f"{name}_high"] < 0)).sum())
        largest = rows.loc[rows[name].abs().idxmax()]
        yield (
            f"Excess over the {null} null: {num} of {count_text(len(rows), 'interval')} exclude 0; "
            f"the largest is {largest[name]:+.3f} ({largest['task']} from {largest['init']}, "
            f"{largest['block']}) where sigma is {largest['sigma']:+.3f}."
        )


def published_sentences(sigma: Frame) -> Iterator[str]:
    """Each cell beside its row of the paper's Table 2."""
    texts = []
    found = sigma.dropna(subset=["published"])
    for (task, init), rows in found.groupby(["task", "init"], sort=False):
        by_block = rows.set_index("block")
        text = agreement_text(agreement(by_block["sigma"], by_block["published"]))
        texts.append(f"{task} from {init} ({rows['published_row'].iloc[0]}): {text}")
    if texts:
        yield f"Beside the paper's Table 2: {'; '.join(texts)}."


def limits(
    cells: Sequence[CellRun], *, missing: Sequence[str], common: str, window: str
) -> Iterator[str]:
    """What a reader must know before believing the tables."""
    if missing:
        yield f"Not finished and left out: {'; '.join(missing)}."
    if common:
        yield f"All tasks are parts of their data sets, {common}, which their names here leave out."
    models = sorted({str(cell.flow.settings.get("model")) for cell in cells})
    bases = {base_of(cell.task) for cell in cells if cell.published is not None}
    if bases and (common or models != [RESNET]):
        yield (
            f"The paper's rows are of ResNet-50 on all of {' and '.join(sorted(bases))}, "
            f"pre-trained on ImageNet with labels; here: {', '.join(models)}."
        )
    elif any(cell.published and cell.is_pretrained for cell in cells):
        yield "The paper's pre-trained rows start from ImageNet with labels, whatever starts here."
    floors = " and ".join(f"{floor:g} % on {task}" for task, floor in FLOORS.items())
    yield (
        f"A cell gets no sigma verdict if its dense accuracy is below {floors} (floors of the "
        "whole data sets, also for parts of them): weights that learned little tell little of "
        "learning."
    )
    yield from _seed_limits(min(len(cell.flow.seeds) for cell in cells))
    yield (
        f"Means over levels {window}; the paper does not say which levels its means cover, those "
        "from level 1 on stand beside them in the tables. With a constant scale factor such "
        "a mean depends only on the first and the last level."
    )
    yield (
        "Distances are sizes: scatter between seeds makes them positive even where two tasks "
        "agree. Shares sum to one, so the blocks of a cell are not independent."
    )


def _seed_limits(num_seeds: int) -> Iterator[str]:
    yield (
        f"{count_text(num_seeds, 'seed')} a cell. Cells share seeds, so differences are taken seed "
        "by seed, with Student's intervals over seeds; levels are no replicates."
    )
    if num_seeds == 1:
        yield "One seed gives no interval: no claim is decided."
    elif num_seeds < 5:
        yield (
            f"With {num_seeds} seeds intervals are wide: what is not decided is not shown to be "
            "absent. The permutation test in distances.csv cannot give a small p-value either."
        )


def in_window(tables: Mapping[str, Frame], window: str) -> dict[str, Frame]:
    """The rows of one window; tables without windows as they are."""
    return {
        name: frame[frame["window"] == window].reset_index(drop=True)
        if "window" in frame
        else pd.DataFrame(frame)
        for name, frame in tables.items()
    }
