"""What a transfer experiment measured, and what its flows say of it, as tables.

In: an experiment folder with ``cells.csv`` (one row a trained network) and a run folder for each
source below ``sources``. Out: `TransferTables`, which `write_tables` puts beside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from experiments.studies.transfer.cells import COLUMNS
from experiments.studies.transfer.predictors import (
    ALL_LEVELS,
    Predictions,
    TaskFlows,
    distances_at,
    leave_one_out_rows,
    read_flows,
    score_rows,
)
from imp_rg.config import require
from imp_rg.plots.style import Frame
from imp_rg.rg import (
    MinimalDensity,
    TransferOutcomes,
    minimal_density,
    transfer_outcomes,
    viable_levels,
)
from imp_rg.rg.stats import SeedInterval, t_interval
from imp_rg.runs.files import read_csv, read_json, write_csv
from imp_rg.tickets.transfer import Kind
from imp_rg.types import Float, Int

FRAMES = ("outcomes", "predictors", "leave_one_out", "minimal_density")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Test metrics of all networks that were trained.

    Attributes:
      tasks: Names, in the order of the experiment.
      seeds: Numbers of the replicates.
      levels: Compared levels, at which the whole matrix was trained.
      density: Kept fraction at every level that some ticket was trained at, falling.
      table: ``cells.csv``.
    """

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    levels: tuple[int, ...]
    density: dict[int, float]
    table: Frame

    def metric(self, kind: str, level: int) -> Float[np.ndarray, "source target seed"]:
        """Percent; NaN where nothing was trained. House definition."""
        rows = self.table[(self.table["kind"] == kind) & (self.table["level"] == level)]
        axes = (self.tasks, self.tasks, self.seeds)
        indexed = rows.set_index(["source", "target", "seed"])["test_metric"]
        found = indexed.reindex(pd.MultiIndex.from_product(axes)).to_numpy(float)
        return found.reshape([len(axis) for axis in axes])

    def own(self, kind: str, level: int) -> Float[np.ndarray, "target seed"]:
        """Where source and target are the same task. House definition."""
        return np.einsum("ttn->tn", self.metric(kind, level))

    def num_viable(self) -> Int[np.ndarray, " target"]:
        """Levels, from the densest, with something to transfer, see `viable_levels`.

        The worst random or re-initialised ticket says what a network scores that learns nothing.
        """
        own = [t_interval(self.own("ticket", level).T).mean for level in self.density]
        dense = t_interval(self.own("dense", 0).T).mean
        controls = self.table[self.table["kind"].isin(["random", "reinit"])]
        cells = controls.groupby(["target", "source", "kind", "level"])["test_metric"].mean()
        floor = cells.groupby("target").min().reindex(list(self.tasks)).to_numpy(float)
        return viable_levels(np.array(own), dense, floor)

    def outcomes(
        self, level: int, *, kind: str = "ticket", ci_level: float = 0.95
    ) -> TransferOutcomes:
        """Outcomes at one level, of tickets or of what stands in for them. House definition."""
        return transfer_outcomes(
            self.metric(kind, level),
            self.own("ticket", level),
            self.own("dense", 0),
            self.metric("random", level),
            ci_level=ci_level,
        )


@dataclass(frozen=True, kw_only=True)
class TransferTables:
    """Everything that a transfer experiment says.

    Attributes:
      cells: What was measured.
      at: Outcomes at each compared level.
      flows: What the sources' flows say.
      predictions: Distances, and their scores as frames.
      outcomes: A row a target, source, level and quantity.
      minimal: A row a source, target and kind: the lowest density that transfers.
      ci_level: Coverage of the intervals over seeds.
    """

    cells: Cells
    at: dict[int, TransferOutcomes]
    flows: TaskFlows
    predictions: Predictions
    outcomes: Frame
    minimal: Frame
    ci_level: float

    @property
    def lead_level(self) -> int:
        """The level that figures of one level show: most cells count there, the densest of such."""
        return max(self.at, key=lambda level: (self.at[level].num_counted, -level))


def make_tables(
    folder: Path, *, ci_level: float = 0.95, num_permutations: int = 10_000
) -> TransferTables:
    """Reads an experiment and scores what predicts its cells.

    Args:
      folder: Of the experiment.
      ci_level: Coverage of the intervals over seeds, in (0, 1).
      num_permutations: Of Mantel's test; the bootstrap draws a fifth of it.

    Returns:
      The `TransferTables`.

    Raises:
      ValueError: In one line, if a table or a source is missing or does not fit.

    References:
      House definition.
    """
    cells = read_cells(folder)
    flows = read_flows(folder / "sources", cells.tasks, ci_level=ci_level)
    at = {level: cells.outcomes(level, ci_level=ci_level) for level in cells.levels}
    minimal = minimal_rows(cells)
    dense = t_interval(cells.own("dense", 0).T).mean
    mask_levels = {level: level for level in cells.levels} | {ALL_LEVELS: cells.levels[-1]}
    distances = {
        level: distances_at(flows, dense, level, mask_level=of_masks)
        for level, of_masks in mask_levels.items()
    }
    losses = {level: outcome.loss for level, outcome in at.items()}
    losses[ALL_LEVELS] = minimal_matrix(minimal, cells.tasks)
    transfers = {level: outcome.transfers for level, outcome in at.items()}
    counted = {level: outcome.counted for level, outcome in at.items()}
    return TransferTables(
        cells=cells,
        at=at,
        flows=flows,
        predictions=Predictions(
            distances=distances,
            scores=score_rows(distances, losses, transfers, num_permutations=num_permutations),
            leave_one_out=leave_one_out_rows(distances, transfers, counted, cells.tasks),
        ),
        outcomes=outcome_rows(cells, at, ci_level=ci_level),
        minimal=minimal,
        ci_level=ci_level,
    )


def write_tables(folder: Path, tables: TransferTables) -> None:
    """Writes one CSV for each of `FRAMES`."""
    predictions = tables.predictions
    frames = (tables.outcomes, predictions.scores, predictions.leave_one_out, tables.minimal)
    for name, frame in zip(FRAMES, frames, strict=True):
        write_csv(folder / f"{name}.csv", frame.round(6))


def read_cells(folder: Path) -> Cells:
    """Reads ``cells.csv``; tasks and compared levels are those of ``config.json``.

    Raises:
      ValueError: In one line, if either does not fit.
    """
    config = read_json(folder / "config.json")
    for name in ("tasks", "levels_compared"):
        require(bool(config.get(name)), name, "must be in config.json", config.get(name))
    tasks = tuple(map(str, config["tasks"]))
    table = read_csv(folder / "cells.csv")
    missing = [name for name in COLUMNS if name not in table]
    require(not missing, "cells.csv", f"must have the columns {', '.join(COLUMNS)}", list(table))
    table = table.astype({"target": str, "source": str})
    for name, known in (("target", tasks), ("source", tasks), ("kind", get_args(Kind))):
        others = sorted(set(table[name]) - set(known))
        require(not others, f"cells.csv: {name}", f"must be one of {', '.join(known)}", others)
    is_again = table.duplicated(["target", "source", "kind", "level", "seed"])
    require(not is_again.any(), "cells.csv", "must hold each network once", int(is_again.sum()))
    trained = table[table["kind"] == "ticket"].groupby("level")["density"].first().sort_index()
    return Cells(
        tasks=tasks,
        seeds=tuple(sorted(table["seed"].unique().tolist())),
        levels=tuple(sorted(config["levels_compared"])),
        # pandas types the labels of an index as any hashable.
        density={int(level): float(density) for level, density in trained.items()},  # pyright: ignore[reportArgumentType]
        table=table,
    )


def outcome_rows(cells: Cells, at: dict[int, TransferOutcomes], *, ci_level: float) -> Frame:
    """Every effect at the compared levels with its t-interval over seeds, in points.

    `metric` is the trained ticket itself, in percent; the others are differences.
    """
    rows = []
    for level, outcome in at.items():
        ticket = cells.metric("ticket", level)
        quantities = {
            "metric": t_interval(np.moveaxis(ticket, -1, 0), ci_level=ci_level),
            "minus_own": outcome.minus_own,
            "minus_dense": outcome.minus_dense,
            "minus_random": outcome.minus_random,
            "minus_reinit": t_interval(
                np.moveaxis(ticket - cells.metric("reinit", level), -1, 0), ci_level=ci_level
            ),
            "random_minus_dense": outcome.random_minus_dense,
        }
        for quantity, interval in quantities.items():
            rows += _outcome_rows(cells, level, outcome, quantity, interval)
    return pd.DataFrame(rows)


def _outcome_rows(
    cells: Cells, level: int, outcome: TransferOutcomes, quantity: str, interval: SeedInterval
) -> Iterator[dict[str, Any]]:
    for source, target in np.ndindex(outcome.counted.shape):
        yield {
            "target": cells.tasks[target],
            "source": cells.tasks[source],
            "level": level,
            "density": cells.density.get(level, np.nan),
            "quantity": quantity,
            "mean": interval.mean[source, target],
            "low": interval.low[source, target],
            "high": interval.high[source, target],
            "transfers": bool(outcome.transfers[source, target]),
            "saturated": bool(outcome.saturated[source, target]),
            "counted": bool(outcome.counted[source, target]),
        }


def minimal_rows(cells: Cells) -> Frame:
    """The lowest density that transfers, of tickets and of the controls, from all viable levels.

    A pair needs the target's own ticket at a level; levels without are not looked at.
    """
    num_viable = cells.num_viable()
    columns = ["source", "target", "kind", "level", "density", "is_bound", "is_monotone"]
    rows = []
    for kind in ("ticket", "random", "reinit"):
        outcomes = {level: cells.outcomes(level, kind=kind) for level in cells.density}
        for source, target in np.ndindex(len(cells.tasks), len(cells.tasks)):
            if source != target:
                levels = list(outcomes)[: num_viable[target]]
                viable = {level: outcomes[level] for level in levels}
                found = _minimal(cells, viable, (source, target))
                if found is not None:
                    names = cells.tasks[source], cells.tasks[target]
                    rows.append([*names, kind, *found])
    return pd.DataFrame(rows, columns=pd.Index([*columns, "num_levels"])).astype({"level": "Int64"})


def _minimal(
    cells: Cells, outcomes: dict[int, TransferOutcomes], cell: tuple[int, int]
) -> tuple[Any, ...] | None:
    """Level, density and flags of one pair; None without a level to look at."""
    known = [n for n, outcome in outcomes.items() if not np.isnan(outcome.minus_own.mean[cell])]
    if not known:
        return None
    found: MinimalDensity = minimal_density(
        np.array([outcomes[n].transfers[cell] for n in known]),
        np.array([cells.density[n] for n in known]),
    )
    level = None if found.level is None else known[found.level]
    return level, found.density, found.is_bound, found.is_monotone, len(known)


def minimal_matrix(minimal: Frame, tasks: tuple[str, ...]) -> Float[np.ndarray, "source target"]:
    """Minimal densities of tickets; infinite where none transfers, NaN where there is none."""
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for row in minimal[minimal["kind"] == "ticket"].to_dict("records"):
        matrix[tasks.index(row["source"]), tasks.index(row["target"])] = row["density"]
    return matrix
