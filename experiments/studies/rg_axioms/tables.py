"""Exponents and masks at different step sizes, as tables.

In: the flow of each step size x. Out: ``sigma.csv``, ``differences.csv``, ``overlap.csv``.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from imp_rg.imp.overlap import mask_overlap
from imp_rg.rg import mean_is_zero_p, t_interval
from imp_rg.rg.permutation import holm
from imp_rg.runs import Flow

ESTIMATORS = ("paper", "slope", "logratio")


def sigma_frame(flows: Mapping[float, Flow], *, ci_level: float) -> pd.DataFrame:
    """Exponents by step size, estimator and block, with t-intervals over seeds."""
    frames = []
    for x, flow in flows.items():
        spectrum = flow.spectrum(ci_level=ci_level)
        for estimator in ESTIMATORS:
            columns = {
                "x": x,
                "estimator": estimator,
                "block": flow.trajectory.blocks.names,
                "sigma": spectrum.sigma[estimator],
                "low": spectrum.ci_low[estimator],
                "high": spectrum.ci_high[estimator],
                "num_seeds": spectrum.num_seeds[estimator],
            }
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def difference_frame(flows: Mapping[float, Flow], *, ci_level: float) -> pd.DataFrame:
    """Differences of sigma between step sizes, seed by seed, with intervals.

    The same seed has the same dense network at every step size. p-values are corrected by Holm's
    method over all pairs and blocks of an estimator.
    """
    sigmas = {x: flow.spectrum().sigma_per_seed for x, flow in flows.items()}
    blocks = next(iter(flows.values())).trajectory.blocks.names
    frames = []
    for estimator in ESTIMATORS:
        of_estimator = []
        for a, b in combinations(flows, 2):
            per_seed = sigmas[a][estimator] - sigmas[b][estimator]
            interval = t_interval(per_seed, ci_level=ci_level)
            columns = {
                "x_a": a,
                "x_b": b,
                "estimator": estimator,
                "block": blocks,
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "p": mean_is_zero_p(per_seed),
            }
            of_estimator.append(pd.DataFrame(columns))
        frame = pd.concat(of_estimator, ignore_index=True)
        frames.append(frame.assign(p_holm=holm(frame["p"].to_numpy(float))))
    return pd.concat(frames, ignore_index=True)


def null_difference(flows: Mapping[float, Flow]) -> float:
    """Largest difference of sigma between step sizes when nothing is refined (one-shot null)."""
    sigmas = [flow.null_spectrum("oneshot").sigma_per_seed["paper"] for flow in flows.values()]
    return float(np.nanmax(np.ptp(sigmas, axis=0)))


def overlap_frame(flows: Mapping[float, Flow], divisions: Mapping[float, int]) -> pd.DataFrame:
    """Jaccard overlap of masks at matched densities, with what chance gives.

    Kinds: ``step`` compares two step sizes on one seed, ``seed`` two seeds at one step size.
    """
    rows = []
    for a, b in combinations(flows, 2):
        for seed in range(len(flows[a].seeds)):
            rows += _rows("step", flows, divisions, (a, seed), (b, seed))
    x = next(iter(flows))
    for seed in range(len(flows[x].seeds) - 1):
        rows += _rows("seed", flows, divisions, (x, seed), (x, seed + 1))
    return pd.DataFrame(rows)


def _rows(kind, flows, divisions, one, other):
    """Overlaps of two replicates, each a step size and a seed, at all matched densities."""
    (x_a, seed_a), (x_b, seed_b) = one, other
    density = flows[x_a].trajectory.density[:: divisions[x_a]]
    for level in range(1, len(density)):
        masks_a, masks_b = (
            flows[x].read_masks(seed, level * divisions[x]) for x, seed in (one, other)
        )
        overlap = mask_overlap(masks_a.values(), (masks_b[name] for name in masks_a))
        yield {
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
