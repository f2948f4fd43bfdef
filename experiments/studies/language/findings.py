"""Exponents of an encoder by task: the paper's Table 3, beside what pruning alone gives.

In: one run folder a task, by layer or by single matrix. Out: ``table3.csv``, ``kinds.csv``,
``differences.csv``, ``tasks.csv``, ``spread.csv``; with ``similarity.csv`` of each task also that
of all, and ``likeness.csv``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from experiments.studies.language.similarity import rank_frame, read_similarity
from imp_rg import published
from imp_rg.blocks import REST
from imp_rg.config import require
from imp_rg.models.bert import KINDS
from imp_rg.rg.estimate import Estimate
from imp_rg.rg.permutation import holm
from imp_rg.runs import Flow, read
from imp_rg.runs.files import read_json, write_csv
from imp_rg.runs.folder import has_finished
from imp_rg.runs.frames import Contrast, difference_frame, sigma_frame
from imp_rg.runs.regroup import regroup

Flows = Mapping[str, Flow]
"""Flow of each task, in the order of the tables."""

NULLS = ("init", "oneshot")

INIT, ONESHOT, MASKS = "IMP − init", "IMP − oneshot", "IMP masks on pre-trained weights − init"

CONTRASTS = {
    INIT: ("trained", "init"),
    ONESHOT: ("trained", "oneshot"),
    MASKS: ("rewound", "init"),
}
"""Differences by name: a point of the flow and the null it is compared with."""

Verdict = Literal["unknown", "not shown", "by chance", "differs"]

LEVEL = 0.05
"""A smaller p-value, after Holm's correction, is taken for real."""


def read_tasks(folder: Path) -> dict[str, Flow]:
    """Flows of the finished run folders below `folder`, in the order of ``tasks`` in its config.

    Raises:
      ValueError: If there is none, one is unreadable, or they differ in their blocks or levels.
    """
    names = finished_tasks(folder)
    require(bool(names), str(folder), "must hold a finished run folder of a task", names)
    flows = {name: read(folder / name) for name in names}
    first = flows[names[0]].trajectory
    for name, flow in flows.items():
        blocks, num_kept = flow.trajectory.blocks.names, flow.trajectory.num_kept
        rule = f"must have the blocks and levels of {names[0]}"
        require(blocks == first.blocks.names, name, rule, blocks)
        require(np.array_equal(num_kept, first.num_kept), name, rule, num_kept.tolist())
    return flows


def finished_tasks(folder: Path) -> list[str]:
    """Tasks of an experiment whose run has ended."""
    return [name for name in read_names(folder) if has_finished(folder / name)]


def read_names(folder: Path) -> list[str]:
    """Tasks of an experiment in the order of its config, finished or not."""
    if (folder / "config.json").exists():
        return read_json(folder / "config.json")["tasks"]
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def write_tables(folder: Path, flows: Flows, *, ci_level: float) -> None:
    """Computes and writes every table that the runs allow."""
    layers, kinds = by_layer(flows), by_kind(flows)
    table3 = exponents(layers, ci_level=ci_level)
    tables = {"table3": table3}
    of_parts = [differences(layers, ci_level=ci_level).assign(partition="layer")]
    if kinds is not None:
        tables["kinds"] = exponents(kinds, ci_level=ci_level)
        of_parts.append(differences(kinds, ci_level=ci_level).assign(partition="kind"))
    tables["differences"] = pd.concat(of_parts, ignore_index=True)
    tables["tasks"] = task_frame(table3, of_parts[0], flows)
    tables["spread"] = between_tasks(layers)
    similarity = read_similarity(folder, list(flows))
    if similarity is not None:
        tables["similarity"] = similarity
        tables["likeness"] = rank_frame(similarity, table3)
    for name, frame in tables.items():
        write_csv(folder / f"{name}.csv", frame)


def layer_of(block: str) -> str:
    """``layer3`` of ``layer3/query``; the pooler is in no layer."""
    return block.split("/")[0] if block.startswith("layer") else REST


def kind_of(block: str) -> str:
    """``query`` of ``layer3/query``."""
    kind = block.rpartition("/")[2]
    return kind if kind in KINDS else REST


def by_layer(flows: Flows) -> dict[str, Flow]:
    """The flows by layer."""
    return {task: regroup(flow, layer_of) for task, flow in flows.items()}


def by_kind(flows: Flows) -> dict[str, Flow] | None:
    """The flows by kind of matrix; None if the runs kept nothing finer than layers."""
    if not any(kind_of(b) in KINDS for b in next(iter(flows.values())).trajectory.blocks.names):
        return None
    return {task: regroup(flow, kind_of) for task, flow in flows.items()}


def listed_blocks(flow: Flow) -> tuple[str, ...]:
    """Blocks that stand in the tables: all but what is in none."""
    return flow.trajectory.blocks.names[: flow.trajectory.blocks.num_listed]


def exponents(flows: Flows, *, ci_level: float) -> pd.DataFrame:
    """One row a task and listed block: sigma of the trained weights with interval, and its nulls.

    The paper's estimator over all prunable weights. Columns: task, block, sigma, low, high,
    num_seeds, init, oneshot, gaussian.
    """
    frames = []
    for task, flow in flows.items():
        blocks, sigma = listed_blocks(flow), flow.spectrum().sigma_per_seed["paper"]
        frame = sigma_frame(sigma, blocks, {"task": task}, ci_level=ci_level)
        for null in (*NULLS, "gaussian"):
            frame[null] = flow.null_spectrum(null).sigma["paper"][: len(blocks)]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def differences(flows: Flows, *, ci_level: float) -> pd.DataFrame:
    """Differences of sigma, seed by seed, by task and block, for each of `CONTRASTS`.

    p is that of a one-sample t-test over seeds, p_holm the same after Holm's correction over all
    tasks and blocks of a contrast. Columns: contrast, task, block, mean, low, high, p, p_holm.
    """
    contrasts = [
        Contrast(
            {"contrast": name, "task": task},
            flow.spectrum(point=point).sigma_per_seed["paper"],
            flow.null_spectrum(null).sigma_per_seed["paper"],
        )
        for name, (point, null) in CONTRASTS.items()
        for task, flow in flows.items()
    ]
    blocks = listed_blocks(next(iter(flows.values())))
    return difference_frame(
        contrasts, blocks, is_paired=True, ci_level=ci_level, family=["contrast"]
    )


def task_frame(table: pd.DataFrame, differences: pd.DataFrame, flows: Flows) -> pd.DataFrame:
    """One row a task: how far its flow is from the `init` flow, and how well it was learned.

    Columns: task, rms_sigma, rms_init, rms_difference, correlation (of sigma and `init` over
    blocks), largest, largest_block, num_beyond (intervals of IMP − init without 0), num_holm,
    num_blocks, moved (distance of the survivors from their pre-trained weights over the norm of
    those, mean over levels and seeds), metric_dense, metric_last (percent, means over seeds).
    """
    of_init = differences[differences["contrast"] == INIT]
    rows = []
    for task, flow in flows.items():
        sigma, beside = table[table["task"] == task], of_init[of_init["task"] == task]
        largest = beside.iloc[np.nanargmax(beside["mean"].abs())]
        metric = flow.metrics.groupby("level")["test_metric"].mean()
        rows.append(
            {
                "task": task,
                "rms_sigma": _rms(sigma["sigma"]),
                "rms_init": _rms(sigma["init"]),
                "rms_difference": _rms(beside["mean"]),
                "correlation": sigma["sigma"].corr(sigma["init"]),
                "largest": largest["mean"],
                "largest_block": largest["block"],
                **_counts(beside),
                "num_blocks": len(beside),
                "moved": _moved(flow),
                "metric_dense": metric.iloc[0],
                "metric_last": metric.iloc[-1],
            }
        )
    return pd.DataFrame(rows)


def verdict(differences: pd.DataFrame) -> Verdict:
    """Does the IMP flow differ from the `init` flow, over all tasks and layers?"""
    rows = differences[differences["contrast"] == INIT].dropna(subset=["low"])
    if rows.empty:
        return "unknown"
    counts = _counts(rows)
    if counts["num_holm"]:
        return "differs"
    return "by chance" if counts["num_beyond"] else "not shown"


def contrast_frame(differences: pd.DataFrame) -> pd.DataFrame:
    """One row per contrast: how many differences its intervals, and Holm's correction, leave.

    Columns: contrast, num, num_beyond, num_holm, largest, bound (all intervals lie within it).
    """
    rows = [
        {
            "contrast": contrast,
            "num": len(of),
            **_counts(of),
            "largest": of["mean"].abs().max(),
            "bound": float(np.max([-of["low"], of["high"]])),
        }
        for contrast, of in differences.groupby("contrast", sort=False)
    ]
    return pd.DataFrame(rows)


def _counts(differences: pd.DataFrame) -> dict[str, int]:
    return {
        "num_beyond": int(Estimate.at(differences, "mean").excludes().sum()),
        "num_holm": int((differences["p_holm"] < LEVEL).sum()),
    }


def _moved(flow: Flow) -> float:
    """From the distances of the blocks to that of all of them together; NaN if not recorded."""
    rows = flow.observables
    if rows.empty:
        return np.nan
    rows = rows[rows["observable"].isin(["distance", "relative_distance"])]
    wide = rows.pivot(index=["seed", "level", "block"], columns="observable", values="value")
    squares = wide.assign(norm=wide["distance"] / wide["relative_distance"]) ** 2
    sums = squares.groupby(["seed", "level"]).sum()
    return float(np.sqrt(sums["distance"] / sums["norm"]).mean())


def _rms(values: pd.Series) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def between_tasks(flows: Flows) -> pd.DataFrame:
    """One row a block: do the tasks differ more than the seeds of one task?

    Columns: block, mean (over tasks), spread (largest minus smallest task mean), task_sd, seed_sd
    (within tasks), p (one-way analysis of variance), p_holm. NaN where fewer than two tasks, or two
    seeds of one, have a value.
    """
    sigmas = [flow.spectrum().sigma_per_seed["paper"] for flow in flows.values()]
    rows = []
    for i, block in enumerate(listed_blocks(next(iter(flows.values())))):
        groups = [sigma[np.isfinite(sigma[:, i]), i] for sigma in sigmas]
        groups = [group for group in groups if group.size]
        means = np.array([group.mean() for group in groups])
        within = np.concatenate([group - group.mean() for group in groups])
        row = {"block": block, "mean": means.mean(), "spread": np.ptp(means)}
        row |= {"task_sd": np.nan, "seed_sd": np.nan, "p": np.nan}
        if len(means) > 1:
            row["task_sd"] = means.std(ddof=1)
        freedom = len(within) - len(means)
        if len(means) > 1 and freedom > 0:
            row["seed_sd"] = np.sqrt(np.sum(within**2) / freedom)
            row["p"] = stats.f_oneway(*groups).pvalue
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(float)))


def published_frame(table: pd.DataFrame) -> pd.DataFrame | None:
    """The paper's Table 3 as columns task (as printed), block and sigma; None but for 12 layers."""
    blocks = list(dict.fromkeys(table["block"]))
    rows = published.rows(3)
    if len(blocks) != len(rows[0].values):
        return None
    frames = [pd.DataFrame({"task": row.row, "block": blocks, "sigma": row.values}) for row in rows]
    return pd.concat(frames, ignore_index=True)
