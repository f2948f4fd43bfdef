"""Distances of exponents between tasks and between starts, and what pre-training changes of them.

In: exponents of the cells of a vision experiment. Out: ``distances.csv`` and ``changes.csv``.

Cells of one experiment share their seeds: what two cells differ by is taken seed by seed, and its
interval is Student's over seeds.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.studies.vision.cells import TASKS, CellRun, Measured, pairs
from imp_rg.plots.style import Frame
from imp_rg.rg import t_interval
from imp_rg.rg.distance import compare_values
from imp_rg.rg.stats import SeedInterval

ALL = "all"
"""Stands for the root mean square over all listed blocks."""

INIT = "init"
"""The null that knows only the weights to which levels are rewound."""

HELD, NOT_HELD, NOT_DECIDED = "held", "not held", "not decided"

KEYS = ("between", "task_a", "task_b", "init_a", "init_b", "window", "block", "measure")
"""Columns that name what a row is about, of ``distances.csv`` and ``changes.csv``."""


class MeasuredPair(NamedTuple):
    """Two cells over one window.

    Attributes:
      between: What they differ in.
      a: The one that comes first in the list of cells.
      b: The other.
    """

    between: str
    a: Measured
    b: Measured

    @property
    def key(self) -> dict[str, str]:
        """Names of the pair in a table."""
        a, b = self.a.cell, self.b.cell
        tasks, inits = {"task_a": a.task, "task_b": b.task}, {"init_a": a.init, "init_b": b.init}
        return {"between": self.between, **tasks, **inits, "window": self.a.window}

    @property
    def cells(self) -> tuple[CellRun, CellRun]:
        """The two."""
        return self.a.cell, self.b.cell

    def differences(self) -> Iterator[tuple[str, str, Frame, Frame]]:
        """Block, measure and the exponents [seed block] of both, for the seeds that both have.

        The block is `ALL`, or the last listed one on its own.
        """
        of_a, of_b = self.a.by_seed(), self.b.by_seed()
        blocks = self.a.cell.blocks
        for measure in (name for name in of_a if name in of_b):
            for block, names in {ALL: blocks, blocks[-1]: blocks[-1:]}.items():
                a, b = (found[measure][list(names)].dropna() for found in (of_a, of_b))
                seeds = a.index.intersection(b.index)
                yield block, measure, a.loc[seeds], b.loc[seeds]


def measured_pairs(measured: Sequence[Measured]) -> list[MeasuredPair]:
    """Every pair of cells, window by window."""
    found = {(x.cell.folder, x.window): x for x in measured}
    return [
        MeasuredPair(pair.between, found[pair.a.folder, window], found[pair.b.folder, window])
        for window in dict.fromkeys(x.window for x in measured)
        for pair in pairs([x.cell for x in measured if x.window == window])
    ]


def distance_frame(measured: Sequence[Measured], *, ci_level: float) -> Frame:
    """How far two cells are apart, which differ in the task or in the init.

    Columns: `KEYS` (measure: sigma, NULL, excess_NULL), distance (root mean square over blocks of
    the difference of the means), low, high (t over seeds along that difference; not below 0),
    num_seeds (that both have), p (permutation test over seeds), p_smallest (that so few seeds can
    give). Scatter alone makes a distance positive.
    """
    rows = []
    for pair in measured_pairs(measured):
        for block, measure, a, b in pair.differences():
            found = compare_values(a.to_numpy(float), b.to_numpy(float))
            along = _over_seeds(distance_by_seed(a - b), ci_level)
            rows.append(
                pair.key
                | {
                    "block": block,
                    "measure": measure,
                    "distance": found.distance,
                    "low": float(np.maximum(along.low, 0)),
                    "high": float(along.high),
                    "num_seeds": len(a),
                    "p": found.p_value,
                    "p_smallest": found.p_smallest,
                }
            )
    return pd.DataFrame(rows, columns=None if rows else [*KEYS, "distance", "low", "high"])


def change_frame(measured: Sequence[Measured], *, ci_level: float) -> Frame:
    """Does pre-training bring two tasks closer, and closer than it brings their nulls?

    Columns: `KEYS` (inits: the pre-trained ones; measure: sigma, NULL, excess_NULL, and
    beyond_NULL, what the change of sigma has beyond that of a null), scratch, pretrained
    (distances), change (scratch minus pre-trained: positive is closer), low, high (t over seeds),
    num_seeds, found (is it closer: held, not held, not decided), withheld.
    """
    of_tasks = [pair for pair in measured_pairs(measured) if pair.between == TASKS]
    rows = []
    for pair in of_tasks:
        for scratch in of_tasks:
            tasks = [[cell.task for cell in x.cells] for x in (pair, scratch)]
            is_reference = not any(cell.is_pretrained for cell in scratch.cells)
            is_reference &= pair.a.window == scratch.a.window and tasks[0] == tasks[1]
            if is_reference and pair.a.cell.is_pretrained:
                cells = (*scratch.cells, *pair.cells)
                rows += [
                    pair.key | row | {"withheld": withheld_text(row["measure"], cells)}
                    for row in _changes(scratch, pair, ci_level)
                ]
    columns = [*KEYS, "change", "low", "high", "found", "withheld"]
    return pd.DataFrame(rows, columns=None if rows else columns)


def _changes(
    scratch: MeasuredPair, pretrained: MeasuredPair, ci_level: float
) -> Iterator[dict[str, Any]]:
    before, after = _with_beyond(scratch), _with_beyond(pretrained)
    for (block, measure), of_scratch in before.items():
        of_pretrained = after.get((block, measure))
        if of_pretrained is None:
            continue
        found = _over_seeds(of_scratch - of_pretrained, ci_level)  # NaN where one lacks a seed
        yield {
            "block": block,
            "measure": measure,
            "scratch": of_scratch.mean(),
            "pretrained": of_pretrained.mean(),
            "change": float(found.mean),
            "low": float(found.low),
            "high": float(found.high),
            "num_seeds": int(found.num_seeds),
            "found": decide([float(found.low)], [float(found.high)]),
        }


def _over_seeds(values: Any, ci_level: float) -> SeedInterval:
    """NaN where two cells share no seed."""
    return t_interval(
        values.to_numpy(float) if len(values) else np.array([np.nan]), ci_level=ci_level
    )


def _with_beyond(pair: MeasuredPair) -> dict[tuple[str, str], Any]:
    """Distances by seed, by block and measure; those of sigma also less those of each null."""
    found = {(block, name): distance_by_seed(a - b) for block, name, a, b in pair.differences()}
    beyond = {
        (block, f"beyond_{null}"): found[block, "sigma"] - found[block, null]
        for block, null in found
        if (block, f"excess_{null}") in found
    }
    return found | beyond


def distance_by_seed(difference: Frame) -> Any:
    """Difference [seed block] of each seed along the mean difference; [seed].

    Its mean over seeds is the distance: the root mean square over blocks of the mean difference.
    """
    difference = difference.round(12)  # what remains of equal weights is rounding
    mean = difference.mean(axis=0)
    size = float(np.sqrt(np.mean(mean**2)))
    return difference @ mean / (size * len(mean) if size > 0 else 1)


def decide(low: Iterable[float], high: Iterable[float], signs: Sequence[int] = (1,)) -> str:
    """Do intervals have the claimed signs? One of them wholly on the wrong side says no."""
    ends = np.array([[*low], [*high]], float) * np.array(signs)
    if (ends.min(axis=0) > 0).all():
        return HELD
    return NOT_HELD if (ends.max(axis=0) < 0).any() else NOT_DECIDED


def withheld_text(measure: str, cells: Iterable[CellRun]) -> str:
    """Why what was measured gets no verdict; weights never trained need no accuracy."""
    reasons = [cell.withheld for cell in cells if cell.withheld]
    return reasons[0] if reasons and measure != INIT else ""
