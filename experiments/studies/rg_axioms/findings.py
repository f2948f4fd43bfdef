"""Exponents and masks at different step sizes, as tables, and whether sigma depends on the step.

In: the flow of each step size x. Out: ``sigma.csv``, ``differences.csv``, ``null_differences.csv``,
``overlap.csv``, ``empty_layers.csv``.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from imp_rg.imp.overlap import mask_overlap
from imp_rg.runs import Flow
from imp_rg.runs.files import write_csv
from imp_rg.runs.frames import Contrast, difference_frame, sigma_frame

ESTIMATORS = ("paper", "slope", "logratio")

LEVEL = 0.05
"""A smaller p-value, after Holm's correction, is taken for real."""

SMALL = 0.03
"""Differences of sigma below this are called small: the paper prints two decimals."""

Invariance = Literal["unknown", "not refuted", "small dependence", "dependence"]


def write_tables(
    folder: Path, flows: Mapping[float, Flow], divisions: Mapping[float, int], *, ci_level: float
) -> None:
    """Writes every table but that of the checks.

    Args:
      folder: Of the experiment.
      flows: By step size x.
      divisions: Into how many steps x the largest one is divided.
      ci_level: Coverage of the intervals.
    """
    tables = {
        "sigma": all_exponents(flows, ci_level=ci_level),
        "differences": differences(flows, ci_level=ci_level),
        "null_differences": null_differences(flows),
        "overlap": overlap_frame(flows, divisions),
        "empty_layers": empty_layers(flows),
    }
    for name, frame in tables.items():
        write_csv(folder / f"{name}.csv", frame)


def all_exponents(flows: Mapping[float, Flow], *, ci_level: float) -> pd.DataFrame:
    """Exponents by step size, estimator and block, with t-intervals over seeds."""
    frames = []
    for x, flow in flows.items():
        blocks, sigmas = flow.trajectory.blocks.names, flow.spectrum().sigma_per_seed
        for estimator in ESTIMATORS:
            labels = {"x": x, "estimator": estimator}
            frames.append(sigma_frame(sigmas[estimator], blocks, labels, ci_level=ci_level))
    return pd.concat(frames, ignore_index=True)


def differences(flows: Mapping[float, Flow], *, ci_level: float) -> pd.DataFrame:
    """Differences of sigma between step sizes, seed by seed, with intervals.

    The same seed has the same dense network at every step size. p-values are corrected by Holm's
    method over all pairs and blocks of an estimator.
    """
    sigmas = {x: flow.spectrum().sigma_per_seed for x, flow in flows.items()}
    contrasts = [
        Contrast({"x_a": a, "x_b": b, "estimator": name}, sigmas[a][name], sigmas[b][name])
        for name in ESTIMATORS
        for a, b in combinations(flows, 2)
    ]
    blocks = next(iter(flows.values())).trajectory.blocks.names
    return difference_frame(
        contrasts, blocks, is_paired=True, ci_level=ci_level, family=["estimator"]
    )


def null_differences(flows: Mapping[float, Flow]) -> pd.DataFrame:
    """Largest difference of sigma when nothing is refined (one-shot null): x_a, x_b, largest."""
    sigmas = {x: flow.null_spectrum("oneshot").sigma_per_seed["paper"] for x, flow in flows.items()}
    rows = [
        {"x_a": a, "x_b": b, "largest": float(np.nanmax(np.abs(sigmas[a] - sigmas[b])))}
        for a, b in combinations(flows, 2)
    ]
    return pd.DataFrame(rows)


def empty_layers(flows: Mapping[float, Flow]) -> pd.DataFrame:
    """Seeds and levels with an empty layer: x, seed, level, status as in ``metrics.csv``."""
    frames = [
        flow.metrics[flow.metrics["status"].str.startswith("collapsed")].assign(x=x)
        for x, flow in flows.items()
    ]
    return pd.concat(frames, ignore_index=True)[["x", "seed", "level", "status"]]


def overlap_frame(flows: Mapping[float, Flow], divisions: Mapping[float, int]) -> pd.DataFrame:
    """Jaccard overlap of masks at matched densities, with what chance gives.

    Kinds: ``step`` compares two step sizes on one seed, ``seed`` two seeds at one step size.
    """
    x = next(iter(flows))
    pairs = [
        ("step", (a, seed), (b, seed))
        for a, b in combinations(flows, 2)
        for seed in range(len(flows[a].seeds))
    ]
    pairs += [("seed", (x, seed), (x, seed + 1)) for seed in range(len(flows[x].seeds) - 1)]
    rows = []
    for kind, (x_a, seed_a), (x_b, seed_b) in pairs:
        read_a, read_b = flows[x_a].read_masks, flows[x_b].read_masks
        assert read_a is not None and read_b is not None, "runs of ours keep their tickets"
        density = flows[x_a].trajectory.density[:: divisions[x_a]]
        for level in range(1, len(density)):
            masks_a = read_a(seed_a, level * divisions[x_a])
            masks_b = read_b(seed_b, level * divisions[x_b])
            overlap = mask_overlap(masks_a.values(), (masks_b[name] for name in masks_a))
            rows.append(
                {
                    "kind": kind,
                    "x_a": x_a,
                    "x_b": x_b,
                    "seed_a": flows[x_a].seeds[seed_a],
                    "seed_b": flows[x_b].seeds[seed_b],
                    "density": density[level],
                    "jaccard": overlap.jaccard,
                    "chance": overlap.chance,
                    "above_chance": overlap.jaccard - overlap.chance,
                }
            )
    return pd.DataFrame(rows)


def by_paper(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the paper's estimator."""
    return frame[frame["estimator"] == "paper"]


def invariance(differences: pd.DataFrame) -> Invariance:
    """Verdict on Eq. 14 with refinement, by the paper's estimator."""
    rows = by_paper(differences)
    if rows["low"].isna().any():
        return "unknown"
    if not (rows["p_holm"] < LEVEL).any():
        return "not refuted"
    return "small dependence" if bound(rows) < SMALL else "dependence"


def bound(rows: pd.DataFrame) -> float:
    """What all intervals lie within, on both sides of zero."""
    return float(np.max([-rows["low"], rows["high"]]))


def lowest_overlaps(overlap: pd.DataFrame) -> pd.DataFrame:
    """Mean density, jaccard, chance and above_chance at the lowest matched density, by kind."""
    lowest = overlap[overlap["density"] < 1.01 * overlap["density"].min()]
    columns = ["density", "jaccard", "chance", "above_chance"]
    return lowest.groupby("kind", sort=False)[columns].mean().reset_index()
