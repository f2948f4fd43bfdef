"""Distances between tasks, from their flows alone: what may tell which tickets transfer.

In: a run folder per task. Out: matrices [source target], of exponents, masks, shares of the kept
weights (which have learned nothing), and dense metrics.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imp_rg.imp.overlap import mask_overlap
from imp_rg.pytree import to_flat
from imp_rg.rg import Comparison, compare_exponents
from imp_rg.rg.estimate import summarise
from imp_rg.runs.comparison import run_exponents
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.recognize import read
from imp_rg.runs.tickets import read_ticket
from imp_rg.types import Float

ALL_LEVELS = -1
"""Stands for the level where a distance or an outcome belongs to none: the minimal density."""


class TaskFlows(NamedTuple):
    """What the runs of the sources say.

    Attributes:
      folders: Of the runs, in the order of the tasks.
      seeds: That all of them have.
      comparison: Of their exponents.
      param_share: Mean over seeds, listed blocks.
    """

    folders: list[Path]
    seeds: list[Any]
    comparison: Comparison
    param_share: Float[np.ndarray, "task level block"]


def read_flows(folders: Mapping[str, Path], *, ci_level: float = 0.95) -> TaskFlows:
    """Reads one run folder per task.

    Args:
      folders: By task.
      ci_level: Coverage of the intervals.

    Raises:
      ValueError: In one line, if one is missing or unreadable, or blocks do not match.
    """
    flows = {task: read(folder) for task, folder in folders.items()}
    runs = [run_exponents(flow)._replace(name=task) for task, flow in flows.items()]
    return TaskFlows(
        folders=list(folders.values()),
        seeds=sorted(set.intersection(*(set(flow.seeds) for flow in flows.values()))),
        comparison=compare_exponents(runs, ci_level=ci_level),
        param_share=np.stack([summarise(run.param_share).value for run in runs]),
    )


def mask_overlaps(flows: TaskFlows, level: int) -> Float[np.ndarray, "task task"]:
    """Jaccard minus chance, mean over seeds, both tasks at the same seed. House definition."""
    num = len(flows.folders)
    found = np.full((max(len(flows.seeds), 1), num, num), np.nan)
    for k, seed in enumerate(flows.seeds):
        paths = [ticket_path(folder, seed, level) for folder in flows.folders]
        masks = [to_flat(read_ticket(path).masks) if path.is_file() else None for path in paths]
        for i, j in combinations(range(num), 2):
            a, b = masks[i], masks[j]
            if a is not None and b is not None:
                found[k, i, j] = found[k, j, i] = _above_chance(a, b)
    return found.mean(axis=0)


def _above_chance(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """Over the tensors that either prunes: a head that stays dense says nothing."""
    names = [name for name in a if name in b and not (a[name].all() and b[name].all())]
    if not names:
        return np.nan
    return mask_overlap((a[n] for n in names), (b[n] for n in names)).above_chance


def distances_at(
    flows: TaskFlows, dense: Float[np.ndarray, " task"], level: int, *, mask_level: int
) -> dict[str, Float[np.ndarray, "source target"]]:
    """Every distance by name; those of shares and masks at one level.

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
    sigma = np.stack([summarise(run.sigma).value for run in comparison.runs])
    unknown = np.full_like(comparison.distance["sigma"], np.nan)
    at_level = shares.reshape(len(shares), -1) if level == ALL_LEVELS else shares[:, level]
    return {
        "sigma": comparison.distance["sigma"],
        "sigma_se": comparison.distance_se["sigma"],
        "sigma_shortfall": _shortfall(sigma),
        "excess_init": comparison.distance.get("excess_init", unknown),
        "excess_init_se": comparison.distance_se.get("excess_init", unknown),
        "mask_overlap": 1 - mask_overlaps(flows, mask_level),
        "param_share": np.sqrt(np.mean((at_level[:, None] - at_level) ** 2, axis=-1)),
        "param_share_shortfall": _shortfall(at_level),
        "dense_difference": np.abs(dense[:, None] - dense),
        "target_error": np.broadcast_to(100 - dense, (len(dense), len(dense))),
    }


def _shortfall(values: Float[np.ndarray, "task feature"]) -> Float[np.ndarray, "source target"]:
    """Root mean square of what the source lacks to the target."""
    lack = np.maximum(values[None] - values[:, None], 0)
    return np.sqrt(np.mean(lack**2, axis=-1))
