"""Exponents of an encoder by task: the paper's Table 3, beside what pruning alone gives.

In: one run folder a task, by layer or by single matrix. Out: ``table3.csv``, ``kinds.csv``,
``differences.csv``, ``tasks.csv``, ``spread.csv``; with ``similarity.csv`` of each task also that
of all, and ``likeness.csv``.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from experiments.studies.language.similarity import rank_frame, read_similarity
from imp_rg import published
from imp_rg.blocks import REST
from imp_rg.config import require
from imp_rg.models.bert import KINDS
from imp_rg.plots.style import Frame
from imp_rg.rg import mean_is_zero_p, t_interval
from imp_rg.rg.permutation import holm
from imp_rg.runs import Flow, read
from imp_rg.runs.files import read_json, write_csv
from imp_rg.runs.folder import has_finished
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

LEVEL = 0.05
"""A smaller p-value, after Holm's correction, is taken for real."""


def read_tasks(folder: Path) -> dict[str, Flow]:
    """Flows of the finished run folders below `folder`, in the order of ``tasks`` in its config.

    Raises:
      ValueError: If there is none, one is unreadable, or they differ in their blocks or levels.
    """
    names = [name for name in read_names(folder) if has_finished(folder / name)]
    require(bool(names), str(folder), "must hold a finished run folder of a task", names)
    flows = {name: read(folder / name) for name in names}
    first = flows[names[0]].trajectory
    for name, flow in flows.items():
        blocks, num_kept = flow.trajectory.blocks.names, flow.trajectory.num_kept
        rule = f"must have the blocks and levels of {names[0]}"
        require(blocks == first.blocks.names, name, rule, blocks)
        require(np.array_equal(num_kept, first.num_kept), name, rule, num_kept.tolist())
    return flows


def read_names(folder: Path) -> list[str]:
    """Tasks of an experiment in the order of its config, finished or not."""
    if (folder / "config.json").exists():
        return read_json(folder / "config.json")["tasks"]
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def write_tables(folder: Path, flows: Flows, *, ci_level: float) -> dict[str, Frame]:
    """Computes and writes every table that the runs allow; returns them by name."""
    layers, kinds = by_layer(flows), by_kind(flows)
    table3 = sigma_frame(layers, ci_level=ci_level)
    tables = {"table3": table3}
    differences = [difference_frame(layers, ci_level=ci_level).assign(partition="layer")]
    if kinds is not None:
        tables["kinds"] = sigma_frame(kinds, ci_level=ci_level)
        differences.append(difference_frame(kinds, ci_level=ci_level).assign(partition="kind"))
    tables["differences"] = pd.concat(differences, ignore_index=True)
    tables["tasks"] = task_frame(table3, differences[0], flows)
    tables["spread"] = spread_frame(layers)
    similarity = read_similarity(folder, list(flows))
    if similarity is not None:
        tables["similarity"] = similarity
        tables["likeness"] = rank_frame(similarity, table3)
    for name, frame in tables.items():
        write_csv(folder / f"{name}.csv", frame)
    published = published_frame(table3)
    return tables if published is None else tables | {"published": published}


def of_partition(tables: dict[str, Frame], partition: str) -> Frame:
    """Differences by layer or by kind."""
    differences = tables["differences"]
    return differences[differences["partition"] == partition]


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


def sigma_frame(flows: Flows, *, ci_level: float) -> Frame:
    """One row a task and listed block: sigma of the trained weights with interval, and its nulls.

    The paper's estimator over all prunable weights. Columns: task, block, sigma, low, high,
    num_seeds, init, oneshot, gaussian.
    """
    frames = []
    for task, flow in flows.items():
        spectrum = flow.spectrum(ci_level=ci_level)
        columns = {
            "task": task,
            "block": flow.trajectory.blocks.names,
            "sigma": spectrum.sigma["paper"],
            "low": spectrum.ci_low["paper"],
            "high": spectrum.ci_high["paper"],
            "num_seeds": spectrum.num_seeds["paper"],
        }
        for null in (*NULLS, "gaussian"):
            columns[null] = flow.null_spectrum(null).sigma["paper"]
        frames.append(pd.DataFrame(columns).iloc[: flow.trajectory.blocks.num_listed])
    return pd.concat(frames, ignore_index=True)


def difference_frame(flows: Flows, *, ci_level: float) -> Frame:
    """Differences of sigma, seed by seed, by task and block, for each of `CONTRASTS`.

    p is that of a one-sample t-test over seeds, p_holm the same after Holm's correction over all
    tasks and blocks of a contrast. Columns: contrast, task, block, mean, low, high, p, p_holm.
    """
    frames = []
    for contrast in CONTRASTS:
        of_contrast = []
        for task, flow in flows.items():
            per_seed = _differences(flow, contrast)
            interval = t_interval(per_seed, ci_level=ci_level)
            columns = {
                "contrast": contrast,
                "task": task,
                "block": flow.trajectory.blocks.names[: per_seed.shape[1]],
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "p": mean_is_zero_p(per_seed),
            }
            of_contrast.append(pd.DataFrame(columns))
        frame = pd.concat(of_contrast, ignore_index=True)
        frames.append(frame.assign(p_holm=holm(frame["p"].to_numpy(float))))
    return pd.concat(frames, ignore_index=True)


def _differences(flow: Flow, contrast: str) -> np.ndarray:
    """[seed listed_block]."""
    point, null = CONTRASTS[contrast]
    sigma = flow.spectrum(point=point).sigma_per_seed["paper"]
    of_null = flow.null_spectrum(null).sigma_per_seed["paper"]
    return (sigma - of_null)[:, : flow.trajectory.blocks.num_listed]


def task_frame(table: Frame, differences: Frame, flows: Flows) -> Frame:
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
        largest = beside.loc[beside["mean"].abs().idxmax()]
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
                "num_beyond": num_beyond(beside),
                "num_holm": int((beside["p_holm"] < LEVEL).sum()),
                "num_blocks": len(beside),
                "moved": _moved(flow),
                "metric_dense": metric.iloc[0],
                "metric_last": metric.iloc[-1],
            }
        )
    return pd.DataFrame(rows)


def num_beyond(differences: Frame) -> int:
    """Differences whose interval does not hold 0."""
    return int(((differences["low"] > 0) | (differences["high"] < 0)).sum())


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


def spread_frame(flows: Flows) -> Frame:
    """One row a block: do the tasks differ more than the seeds of one task?

    Columns: block, mean (over tasks), spread (largest minus smallest task mean), task_sd, seed_sd
    (within tasks), p (one-way analysis of variance), p_holm. NaN where fewer than two tasks, or two
    seeds of one, have a value.
    """
    sigmas = [flow.spectrum().sigma_per_seed["paper"] for flow in flows.values()]
    trajectory = next(iter(flows.values())).trajectory
    rows = []
    for i, block in enumerate(trajectory.blocks.names[: trajectory.blocks.num_listed]):
        groups = [sigma[np.isfinite(sigma[:, i]), i] for sigma in sigmas]
        means = np.array([group.mean() for group in groups if group.size])
        within = np.concatenate([group - group.mean() for group in groups if group.size])
        is_testable = len(means) > 1 and within.size > len(means)
        rows.append(
            {
                "block": block,
                "mean": means.mean() if means.size else np.nan,
                "spread": np.ptp(means) if means.size else np.nan,
                "task_sd": means.std(ddof=1) if means.size > 1 else np.nan,
                "seed_sd": np.sqrt(np.sum(within**2) / max(within.size - len(means), 1))
                if is_testable
                else np.nan,
                "p": stats.f_oneway(*[g for g in groups if g.size]).pvalue
                if is_testable
                else np.nan,
            }
        )
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(float)))


def published_frame(table: Frame) -> Frame | None:
    """The paper's Table 3 as columns task (as printed), block and sigma; None but for 12 layers."""
    blocks = list(dict.fromkeys(table["block"]))
    rows = published.rows(3)
    if len(blocks) != len(rows[0].values):
        return None
    frames = [pd.DataFrame({"task": row.row, "block": blocks, "sigma": row.values}) for row in rows]
    return pd.concat(frames, ignore_index=True)
