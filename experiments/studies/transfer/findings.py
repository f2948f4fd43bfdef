"""What a transfer experiment measured, and what its flows say of it, as tables.

In: an experiment folder with ``cells.csv`` (one row per trained network) and a run folder for each
source below ``sources``. Out: the tables beside them, and what each predictor comes to.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from experiments.studies.transfer.config import task_folder
from experiments.studies.transfer.predictors import leave_one_out_frame, score_frame
from experiments.studies.transfer.run import COLUMNS
from imp_rg.config import require
from imp_rg.rg import (
    Comparison,
    MinimalDensity,
    TransferOutcomes,
    minimal_density,
    transfer_outcomes,
    viable_levels,
)
from imp_rg.rg.estimate import contrast, summarise
from imp_rg.rg.prediction import SIGNIFICANCE
from imp_rg.rg.universality import SIGMA
from imp_rg.runs.files import read_csv, read_json, write_csv
from imp_rg.runs.task_distances import ALL_LEVELS, distances_at, read_flows
from imp_rg.tickets.transfer import Kind
from imp_rg.types import Float, Int

EXPLAINS, NOT_CHANCE, LOSES, NO_POWER, NO_VERDICT, UNKNOWN = (
    "explains",
    "above its control, not beyond chance",
    "loses to its control",
    "no power",
    "no verdict",
    "unknown",
)


@dataclass(frozen=True, kw_only=True)
class Metrics:
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
    table: pd.DataFrame

    def of(self, kind: str, level: int) -> Float[np.ndarray, "source target seed"]:
        """Percent; NaN where nothing was trained. House definition."""
        rows = self.table[(self.table["kind"] == kind) & (self.table["level"] == level)]
        axes = (self.tasks, self.tasks, self.seeds)
        indexed = rows.set_index(["source", "target", "seed"])["test_metric"]
        found = indexed.reindex(pd.MultiIndex.from_product(axes)).to_numpy(float)
        return found.reshape([len(axis) for axis in axes])

    def own(self, kind: str, level: int) -> Float[np.ndarray, "target seed"]:
        """Where source and target are the same task. House definition."""
        return np.einsum("ttn->tn", self.of(kind, level))

    @property
    def dense(self) -> Float[np.ndarray, " target"]:
        """Of the dense network on each target, mean over seeds."""
        return summarise(self.own("dense", 0).T).value

    def num_viable(self) -> Int[np.ndarray, " target"]:
        """Levels, from the densest, with something to transfer, see `viable_levels`.

        The worst random or re-initialised ticket says what a network scores that learns nothing.
        """
        own = [summarise(self.own("ticket", level).T).value for level in self.density]
        controls = self.table[self.table["kind"].isin(["random", "reinit"])]
        trained = controls.groupby(["target", "source", "kind", "level"])["test_metric"].mean()
        floor = trained.groupby("target").min().reindex(list(self.tasks)).to_numpy(float)
        return viable_levels(np.array(own), self.dense, floor)

    def outcomes(
        self, level: int, *, kind: str = "ticket", ci_level: float = 0.95
    ) -> TransferOutcomes:
        """Outcomes at one level, of tickets or of what stands in for them. House definition."""
        return transfer_outcomes(
            self.of(kind, level),
            self.own("ticket", level),
            self.own("dense", 0),
            self.of("random", level),
            ci_level=ci_level,
        )


def read_metrics(folder: Path) -> Metrics:
    """Reads ``cells.csv``; tasks and compared levels are those of ``config.json``.

    Raises:
      ValueError: In one line, if either does not fit.
    """
    config = read_json(folder / "config.json")
    for name in ("tasks", "levels_compared"):
        require(bool(config.get(name)), name, "must be in config.json", config.get(name))
    tasks = tuple(map(str, config["tasks"]))
    table = read_csv(folder / "cells.csv")
    is_there = set(COLUMNS) <= set(table)
    require(is_there, "cells.csv", f"must have the columns {', '.join(COLUMNS)}", list(table))
    table = table.astype({"target": str, "source": str})
    for name, known in (("target", tasks), ("source", tasks), ("kind", get_args(Kind))):
        others = sorted(set(table[name]) - set(known))
        require(not others, f"cells.csv: {name}", f"must be one of {', '.join(known)}", others)
    is_again = table.duplicated(["target", "source", "kind", "level", "seed"])
    require(not is_again.any(), "cells.csv", "must hold each network once", int(is_again.sum()))
    trained: Any = table[table["kind"] == "ticket"].groupby("level")["density"].first()
    return Metrics(
        tasks=tasks,
        seeds=tuple(sorted(table["seed"].unique().tolist())),
        levels=tuple(sorted(config["levels_compared"])),
        density={int(level): float(density) for level, density in trained.sort_index().items()},
        table=table,
    )


def write_findings(folder: Path, *, num_permutations: int = 10_000) -> None:
    """Writes what an experiment measured and what predicts it, a CSV each.

    Args:
      folder: Of the experiment.
      num_permutations: Of Mantel's test; the bootstrap draws a fifth of it.

    Raises:
      ValueError: In one line, if a table or a source is missing or does not fit.

    References:
      House definition.
    """
    ci_level = read_json(folder / "config.json").get("ci_level", 0.95)
    metrics = read_metrics(folder)
    runs = {task: folder / "sources" / task_folder(task) for task in metrics.tasks}
    flows = read_flows(runs, ci_level=ci_level)
    at = {level: metrics.outcomes(level, ci_level=ci_level) for level in metrics.levels}
    minimal = minimal_frame(metrics)
    mask_levels = {level: level for level in metrics.levels} | {ALL_LEVELS: metrics.levels[-1]}
    distances = {
        level: distances_at(flows, metrics.dense, level, mask_level=of_masks)
        for level, of_masks in mask_levels.items()
    }
    losses = {level: outcome.loss for level, outcome in at.items()}
    losses[ALL_LEVELS] = minimal_matrix(minimal, metrics.tasks)
    transfers = {level: outcome.transfers for level, outcome in at.items()}
    counted = {level: outcome.counted for level, outcome in at.items()}
    scores = score_frame(distances, losses, transfers, num_permutations=num_permutations)
    tables = {
        "outcomes": outcome_frame(metrics, at, ci_level=ci_level),
        "predictors": scores,
        "leave_one_out": leave_one_out_frame(distances, transfers, counted, metrics.tasks),
        "minimal_density": minimal,
        "distances": distance_frame(distances, metrics.tasks),
        "verdicts": verdict_frame(scores),
        "told_apart": told_apart_frame(flows.comparison),
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table.round(6))


def outcome_frame(
    metrics: Metrics, at: dict[int, TransferOutcomes], *, ci_level: float
) -> pd.DataFrame:
    """Every effect at the compared levels with its t-interval over seeds, in points.

    `metric` is the trained ticket itself, in percent; the others are differences.
    """
    tables = []
    tasks = np.array(metrics.tasks, dtype=object)
    for level, outcome in at.items():
        ticket, reinit = (
            np.moveaxis(metrics.of(kind, level), -1, 0) for kind in ("ticket", "reinit")
        )
        quantities = {
            "metric": summarise(ticket, ci_level=ci_level),
            "minus_own": outcome.minus_own[:3],
            "minus_dense": outcome.minus_dense[:3],
            "minus_random": outcome.minus_random[:3],
            "minus_reinit": contrast(ticket, reinit, is_paired=True, ci_level=ci_level),
            "random_minus_dense": outcome.random_minus_dense[:3],
        }
        for quantity, (mean, low, high) in quantities.items():
            columns = {
                "target": np.tile(tasks, len(tasks)),
                "source": np.repeat(tasks, len(tasks)),
                "level": level,
                "density": metrics.density.get(level, np.nan),
                "quantity": quantity,
                "mean": mean.ravel(),
                "low": low.ravel(),
                "high": high.ravel(),
                "transfers": outcome.transfers.ravel(),
                "saturated": outcome.saturated.ravel(),
                "counted": outcome.counted.ravel(),
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def minimal_frame(metrics: Metrics) -> pd.DataFrame:
    """The lowest density that transfers, of tickets and of the controls, from all viable levels.

    A pair needs the target's own ticket at a level; levels without are not looked at.
    """
    num_viable = metrics.num_viable()
    rows = []
    for kind in ("ticket", "random", "reinit"):
        outcomes = {level: metrics.outcomes(level, kind=kind) for level in metrics.density}
        for source, target in zip(
            *np.nonzero(~np.eye(len(metrics.tasks), dtype=bool)), strict=True
        ):
            viable = [*outcomes][: num_viable[target]]
            is_known = [not np.isnan(outcomes[n].minus_own.mean[source, target]) for n in viable]
            levels = np.array(viable)[is_known]
            if not len(levels):
                continue
            found: MinimalDensity = minimal_density(
                np.array([outcomes[n].transfers[source, target] for n in levels]),
                np.array([metrics.density[n] for n in levels]),
            )
            rows.append({
                "source": metrics.tasks[source],
                "target": metrics.tasks[target],
                "kind": kind,
                "level": None if found.level is None else levels[found.level],
                "density": found.density,
                "is_bound": found.is_bound,
                "is_monotone": found.is_monotone,
                "num_levels": len(levels),
            })  # fmt: skip
    columns = ["source", "target", "kind", "level", "density", "is_bound", "is_monotone"]
    return pd.DataFrame(rows, columns=pd.Index([*columns, "num_levels"])).astype({"level": "Int64"})


def minimal_matrix(
    minimal: pd.DataFrame, tasks: tuple[str, ...]
) -> Float[np.ndarray, "source target"]:
    """Minimal densities of tickets; infinite where none transfers, NaN where there is none."""
    tickets = minimal[minimal["kind"] == "ticket"]
    square = tickets.pivot(index="source", columns="target", values="density")
    return square.reindex(index=list(tasks), columns=list(tasks)).to_numpy(float)


def distance_frame(
    distances: dict[int, dict[str, np.ndarray]], tasks: tuple[str, ...]
) -> pd.DataFrame:
    """Columns: level (empty for the minimal density), predictor, source, target, distance."""
    frames = [
        pd.DataFrame({
            "level": pd.NA if level == ALL_LEVELS else level,
            "predictor": name,
            "source": np.repeat(tasks, len(tasks)),
            "target": np.tile(tasks, len(tasks)),
            "distance": distance.ravel(),
        })
        for level, of_level in distances.items()
        for name, distance in of_level.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True).astype({"level": "Int64"})


def told_apart_frame(comparison: Comparison) -> pd.DataFrame:
    """Columns: task_a, task_b, verdict: whether their exponents differ beyond seeds."""
    verdicts = comparison.verdict[SIGMA]
    names = comparison.names
    rows = [(names[a], names[b], verdicts[a, b]) for a, b in comparison.pairs]
    return pd.DataFrame(rows, columns=pd.Index(["task_a", "task_b", "verdict"]))


def verdict_frame(scores: pd.DataFrame) -> pd.DataFrame:
    """What each predictor comes to over all levels; the best level speaks.

    Columns: predictor, outcome, version, verdict (one of `EXPLAINS` to `UNKNOWN`), levels (at
    which it explains).
    """
    rows = []
    of_predictors = scores[scores["role"] == "predictor"]
    for names, part in of_predictors.groupby(["predictor", "outcome", "version"], sort=False):
        explains = part[(part["verdict"] == "beats the control") & (part["p_holm"] < SIGNIFICANCE)]
        levels = " ".join(explains["level"].dropna().astype(str))
        rows.append((*names, verdict_of(part), levels))
    columns = ["predictor", "outcome", "version", "verdict", "levels"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def verdict_of(scores: pd.DataFrame) -> str:
    """What one predictor's scores, a row per level, add up to. House definition."""
    verdicts = scores["verdict"]
    if not (scores["num_cells"] > 0).any():
        return UNKNOWN
    if ((verdicts == "beats the control") & (scores["p_holm"] < SIGNIFICANCE)).any():
        return EXPLAINS
    if verdicts.str.startswith("beats").any():
        return NOT_CHANCE
    if (verdicts == "loses to the control").any():
        return LOSES
    return NO_POWER if (verdicts == "no power").any() else NO_VERDICT
