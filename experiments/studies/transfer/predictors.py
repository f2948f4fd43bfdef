"""Distances between tasks, from their flows alone, scored against measured transfer.

In: run folders of the sources. Out: distances [source target] by predictor, and their scores as
frames. The control of every predictor knows no magnitudes, only how many weights each block keeps.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.studies.transfer.config import task_folder
from imp_rg.imp.overlap import mask_overlap
from imp_rg.plots.style import Frame
from imp_rg.pytree import to_flat
from imp_rg.rg import Comparison, compare_exponents, leave_one_task_out, score_predictor
from imp_rg.rg.permutation import holm
from imp_rg.rg.stats import t_interval
from imp_rg.runs import read
from imp_rg.runs.comparison import run_exponents
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import read_ticket
from imp_rg.types import Bool, Float

ALL_LEVELS = -1
"""Stands for the level where a distance or an outcome belongs to none: the minimal density."""


class Predictor(NamedTuple):
    """How tables and figures call a distance.

    Attributes:
      title: Short.
      meaning: One clause.
      control: The predictor that it must beat; none for the controls themselves.
    """

    title: str
    meaning: str
    control: str | None = None


PREDICTORS = {
    "sigma": Predictor(
        "σ", "root mean square over blocks of the difference of exponents", "param_share"
    ),
    "sigma_se": Predictor(
        "σ (standard errors)", "the same, each difference over its standard error", "param_share"
    ),
    "sigma_shortfall": Predictor(
        "σ shortfall (directed)",
        "the same over blocks in which the source's exponent is the smaller one",
        "param_share_shortfall",
    ),
    "excess_init": Predictor(
        "excess σ", "the first, of exponents minus those of the init null", "param_share"
    ),
    "excess_init_se": Predictor(
        "excess σ (standard errors)", "each difference over its standard error", "param_share"
    ),
    "mask_overlap": Predictor(
        "1 − mask overlap", "one minus (Jaccard minus chance), masks of one seed", "param_share"
    ),
    "param_share": Predictor(
        "control: P profile", "difference of the blocks' shares of the kept weights"
    ),
    "param_share_shortfall": Predictor(
        "control: P shortfall (directed)",
        "the same over blocks in which the source keeps the smaller share",
    ),
    "dense_difference": Predictor(
        "control: dense metric", "difference of the two tasks' dense metrics"
    ),
    "target_error": Predictor("control: target", "the target's dense error, whatever the source"),
}
"""In the order of tables and figures."""


class TaskFlows(NamedTuple):
    """What the flows of the sources say.

    Attributes:
      comparison: Of their exponents, in the order of the tasks.
      overlap: Jaccard minus chance by level, tasks by tasks; NaN without tickets.
      param_share: Mean over seeds, listed blocks.
    """

    comparison: Comparison
    overlap: "MaskOverlaps"
    param_share: Float[np.ndarray, "task level block"]


class Predictions(NamedTuple):
    """Distances and their scores.

    Attributes:
      distances: By level, then predictor; [source target].
      scores: A row an outcome, level, version and predictor.
      leave_one_out: A row a level, predictor and task left out; ``all`` for their mean.
    """

    distances: dict[int, dict[str, Float[np.ndarray, "source target"]]]
    scores: Frame
    leave_one_out: Frame


class MaskOverlaps:
    """Agreement of the tickets of two tasks, read when asked for."""

    def __init__(self, folders: list[Path], seeds: list[Any]):
        """Takes the run folder of each task and the seeds that all of them have."""
        self._folders, self._seeds = folders, seeds

    def at(self, level: int) -> Float[np.ndarray, "task task"]:
        """Jaccard minus chance, mean over seeds, both tasks at the same seed. House definition."""
        num = len(self._folders)
        found = np.full((len(self._seeds), num, num), np.nan)
        for k, seed in enumerate(self._seeds):
            paths = [ticket_path(folder, seed, level) for folder in self._folders]
            masks = [_masks(path) if path.is_file() else None for path in paths]
            for i, j in combinations(range(num), 2):
                a, b = masks[i], masks[j]
                if a is not None and b is not None:
                    found[k, i, j] = found[k, j, i] = _above_chance(a, b)
        return found.mean(axis=0) if len(found) else np.full((num, num), np.nan)


def read_flows(sources: Path, tasks: tuple[str, ...], *, ci_level: float) -> TaskFlows:
    """Reads one run folder a task.

    Raises:
      ValueError: In one line, if one is missing or unreadable, or blocks do not match.
    """
    folders = [sources / task_folder(task) for task in tasks]
    flows = [read(folder) for folder in folders]
    runs = [
        run_exponents(flow)._replace(name=task) for flow, task in zip(flows, tasks, strict=True)
    ]
    seeds = sorted(set.intersection(*(set(flow.seeds) for flow in flows)))
    return TaskFlows(
        comparison=compare_exponents(runs, ci_level=ci_level),
        overlap=MaskOverlaps(folders, seeds),
        param_share=np.stack([t_interval(run.param_share).mean for run in runs]),
    )


def distances_at(
    flows: TaskFlows, dense: Float[np.ndarray, " task"], level: int, *, mask_level: int
) -> dict[str, Float[np.ndarray, "source target"]]:
    """All `PREDICTORS`; those of shares and masks at one level.

    Exponents are the paper's estimator over all levels of the flow, trained weights, listed blocks.

    Args:
      flows: Of the sources.
      dense: Dense metric of each task, percent.
      level: Of the shares: one that the flows have, or `ALL_LEVELS` for all together.
      mask_level: Of the masks.

    References:
      House definition.
    """
    comparison, shares = flows.comparison, flows.param_share
    sigma = np.stack([t_interval(run.sigma).mean for run in comparison.runs])
    unknown = np.full_like(comparison.distance["sigma"], np.nan)
    at_level = shares.reshape(len(shares), -1) if level == ALL_LEVELS else shares[:, level]
    found = {
        "sigma": comparison.distance["sigma"],
        "sigma_se": comparison.distance_se["sigma"],
        "sigma_shortfall": _shortfall(sigma),
        "excess_init": comparison.distance.get("excess_init", unknown),
        "excess_init_se": comparison.distance_se.get("excess_init", unknown),
        "mask_overlap": 1 - flows.overlap.at(mask_level),
        "param_share": np.sqrt(np.mean((at_level[:, None] - at_level) ** 2, axis=-1)),
        "param_share_shortfall": _shortfall(at_level),
        "dense_difference": np.abs(dense[:, None] - dense),
        "target_error": np.broadcast_to(100 - dense, (len(dense), len(dense))),
    }
    return {name: found[name] for name in PREDICTORS}


def score_rows(
    distances: Mapping[int, Mapping[str, np.ndarray]],
    losses: Mapping[int, Float[np.ndarray, "source target"]],
    transfers: Mapping[int, Bool[np.ndarray, "source target"]],
    *,
    num_permutations: int,
) -> Frame:
    """Every predictor at every level, directed and symmetrised, beside its control.

    `p_holm` is Holm's correction over the predictors that are no controls, within one level and
    version. The P profile has no control of its own.
    """
    rows = []
    for level, loss in losses.items():
        for name, predictor in PREDICTORS.items():
            of_level = distances[level]
            scores = score_predictor(
                of_level[name],
                loss,
                control=of_level[predictor.control or "param_share"],
                transfers=transfers.get(level),
                num_permutations=num_permutations,
                num_resamples=max(num_permutations // 5, 1),
            )
            for version, score in scores._asdict().items():
                rows.append({
                    "predictor": name,
                    "role": "control" if predictor.control is None else "predictor",
                    "control": predictor.control or "param_share",
                    "outcome": "minimal_density" if level == ALL_LEVELS else "loss",
                    "level": None if level == ALL_LEVELS else level,
                    "version": version,
                    **score._asdict(),
                })  # fmt: skip
    frame = pd.DataFrame(rows).astype({"level": "Int64"})
    of_itself = frame["predictor"] == frame["control"]
    frame.loc[of_itself, ["difference", "ci_low", "ci_high"]] = np.nan
    frame.loc[of_itself, "verdict"] = "is the control"
    return _with_holm(frame)


def leave_one_out_rows(
    distances: Mapping[int, Mapping[str, np.ndarray]],
    transfers: Mapping[int, Bool[np.ndarray, "source target"]],
    counted: Mapping[int, Bool[np.ndarray, "source target"]],
    tasks: tuple[str, ...],
) -> Frame:
    """Will it transfer? By predictor, with each task left out, beside the more frequent answer."""
    rows = []
    for level in transfers:
        found = leave_one_task_out(distances[level], transfers[level], counted=counted[level])
        for name, out in found.items():
            shared = {"level": level, "predictor": name, "majority": out.majority}
            shared["num_cells"] = out.num_cells
            rows.append({**shared, "task": "all", "accuracy": out.accuracy})
            by_task = zip(tasks, out.accuracy_by_task, out.threshold, strict=True)
            rows += [
                {**shared, "task": task, "accuracy": accuracy, "threshold": threshold}
                for task, accuracy, threshold in by_task
            ]
    columns = ["level", "predictor", "task", "accuracy", "threshold", "majority", "num_cells"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _with_holm(frame: Frame) -> Frame:
    """Adds `p_holm` and the smallest value that it could have taken; NaN for controls."""
    of_predictors = frame[frame["role"] == "predictor"]
    for column, name in (("p_value", "p_holm"), ("p_smallest", "p_holm_smallest")):
        adjusted = pd.Series(np.nan, index=frame.index)
        for _, rows in of_predictors.groupby(["outcome", "level", "version"], dropna=False):
            adjusted[rows.index] = holm(rows[column].to_numpy(float))
        frame[name] = adjusted
    return frame


def _shortfall(values: Float[np.ndarray, "task feature"]) -> Float[np.ndarray, "source target"]:
    """Root mean square of what the source lacks to the target."""
    lack = np.maximum(values[None] - values[:, None], 0)
    return np.sqrt(np.mean(lack**2, axis=-1))


def _masks(ticket: Path) -> dict[str, np.ndarray]:
    return to_flat(read_ticket(ticket).masks)


def _above_chance(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """Over the tensors that either prunes: a head that stays dense says nothing."""
    names = [name for name in a if name in b and not (a[name].all() and b[name].all())]
    if not names:
        return np.nan
    return mask_overlap((a[n] for n in names), (b[n] for n in names)).above_chance
