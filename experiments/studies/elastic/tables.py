"""Exponents of several depths, block by block, and how far they spread within a stage.

In: the flow of each depth. Out: ``sigma.csv`` (the paper's Tables 4 to 6 with nulls),
``spread.csv``, ``spread_differences.csv``, and ``paper_mismatch.csv``: what the printed tables say
of the maps that the paper argues with.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float

from experiments.studies.elastic.config import num_normal
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.plots.style import Frame
from imp_rg.published import cifar_resnet_sigma
from imp_rg.rg import t_interval
from imp_rg.rg.stats import welch_interval
from imp_rg.runs import Flow
from imp_rg.runs.tables import flow_spectrum
from imp_rg.tickets.block_maps import BlockMap, sigma_mismatch
from imp_rg.tickets.stretching import NAMED_MAPS

STAGES = ("stage1", "stage2", "stage3")
NULLS = ("init", "oneshot", "gaussian")
ALL_STAGES = "mean of stages"

SPREAD_OF = ("sigma", "excess_init", "excess_oneshot", "sigma_init", "sigma_oneshot",
             "sigma_gaussian")  # fmt: skip
"""Quantities whose spread is compared."""


class Exponents(NamedTuple):
    """Exponents of the normal blocks of one network, by the paper's estimator.

    Attributes:
      depth: Of the network.
      last_level: Of the flow they are read from.
      values: By quantity (sigma, sigma_NULL, excess_NULL, param_share) and stage, [seed block].
    """

    depth: int
    last_level: int
    values: dict[str, dict[str, Float[np.ndarray, "seed block"]]]

    def profile(self, quantity: str) -> dict[str, Float[np.ndarray, " block"]]:
        """Means over seeds, by stage."""
        return {stage: t_interval(x).mean for stage, x in self.values[quantity].items()}


def read_exponents(flow: Flow, depth: int, *, last_level: int) -> Exponents:
    """Exponents of levels 0 to `last_level`; a block without weights left has none (NaN)."""
    trajectory = _until(flow.trajectory, last_level)

    def sigma(**options: Any) -> np.ndarray:
        return flow_spectrum(trajectory, **options).sigma_per_seed["paper"]

    per_block = {"sigma": sigma(), "param_share": sigma(quantity="param_share")}
    for null in NULLS:
        per_block[f"sigma_{null}"] = sigma(null=null)
        per_block[f"excess_{null}"] = per_block["sigma"] - per_block[f"sigma_{null}"]
    columns = {stage: _columns(trajectory.blocks.names, stage, depth) for stage in STAGES}
    values = {
        name: {stage: x[:, found] for stage, found in columns.items()}
        for name, x in per_block.items()
    }
    return Exponents(depth, last_level, values)


def sigma_frame(exponents: Sequence[Exponents], *, ci_level: float) -> pd.DataFrame:
    """One row a depth, range of levels and normal block: sigma, nulls, excess, printed value."""
    rows = []
    for depth, last_level, values in exponents:
        paper = cifar_resnet_sigma(depth)
        for stage in STAGES:
            for i in range(num_normal(depth)):
                block = f"{stage}/block{i + 1}"
                row = {"depth": depth, "last_level": last_level, "stage": stage, "block": block}
                for name in ("sigma", *(f"excess_{null}" for null in NULLS)):
                    interval = t_interval(values[name][stage][:, i], ci_level=ci_level)
                    row |= {
                        name: float(interval.mean),
                        f"{name}_low": float(interval.low),
                        f"{name}_high": float(interval.high),
                    }
                for null in NULLS:
                    of_null = t_interval(values[f"sigma_{null}"][stage][:, i])
                    row[f"sigma_{null}"] = float(of_null.mean)
                num_seeds = np.isfinite(values["sigma"][stage][:, i]).sum()
                rows.append(row | {"paper": paper[block], "num_seeds": num_seeds})
    return pd.DataFrame(rows)


def of_level(frame: Frame, last_level: int) -> Frame:
    """Rows of ``sigma.csv`` or ``spread.csv`` that belong to one range of levels."""
    return frame[frame["last_level"] == last_level]


def spread_frame(exponents: Sequence[Exponents], *, ci_level: float) -> pd.DataFrame:
    """Spread over the normal blocks of a stage, by depth, stage and quantity.

    `sd` is the standard deviation of each seed's exponents, averaged over seeds, with its
    t-interval: scatter between seeds adds to it. `sd_of_mean` is that of the seed means, to which
    it adds less, and `sd_corrected` has the scatter taken out (two-way analysis of variance).
    `range` is largest minus smallest, which grows with the number of blocks by itself. A stage with
    one normal block has no spread and no row.
    """
    rows = []
    for depth, last_level, values in exponents:
        if num_normal(depth) < 2:
            continue
        paper = _by_stage(cifar_resnet_sigma(depth))
        paper_sd = {stage: x.std(ddof=1) for stage, x in paper.items()}
        paper_sd[ALL_STAGES] = np.mean([*paper_sd.values()])
        for quantity in SPREAD_OF:
            spreads = {stage: spread(values[quantity][stage]) for stage in STAGES}
            spreads[ALL_STAGES] = Spread(*(np.mean(x, axis=0) for x in zip(*spreads.values(),
                                                                        strict=True)))  # fmt: skip
            for stage, found in spreads.items():
                sd = t_interval(found.sd, ci_level=ci_level)
                rows.append({
                    "depth": depth,
                    "last_level": last_level,
                    "stage": stage,
                    "quantity": quantity,
                    "num_blocks": num_normal(depth),
                    "sd": float(sd.mean),
                    "sd_low": float(sd.low),
                    "sd_high": float(sd.high),
                    "range": float(t_interval(found.range).mean),
                    "sd_of_mean": float(found.sd_of_mean),
                    "sd_corrected": float(found.sd_corrected),
                    "paper_sd": paper_sd[stage] if quantity == "sigma" else np.nan,
                })  # fmt: skip
    return pd.DataFrame(rows)


class Spread(NamedTuple):
    """Spread of exponents over blocks.

    Attributes:
      sd: Standard deviation over blocks, of each seed.
      range: Largest minus smallest, of each seed.
      sd_of_mean: Standard deviation over blocks of the means over seeds.
      sd_corrected: The same without what scatter between seeds adds; 0 where that is all there is.
    """

    sd: Float[np.ndarray, " seed"]
    range: Float[np.ndarray, " seed"]
    sd_of_mean: float
    sd_corrected: float


def spread(values: Float[np.ndarray, "seed block"]) -> Spread:
    """Spread over at least two blocks; NaN where a block has no exponent. House definition."""
    num_seeds = len(values)
    mean = values.mean(axis=0)
    variance = mean.var(ddof=1)
    if num_seeds < 2:
        corrected = np.nan
    else:
        residual = values - values.mean(axis=1, keepdims=True) - mean + mean.mean()
        scatter = np.sum(residual**2) / (num_seeds - 1) / (values.shape[1] - 1)
        corrected = np.sqrt(np.maximum(variance - scatter / num_seeds, 0))
    return Spread(
        values.std(axis=1, ddof=1), np.ptp(values, axis=1), float(np.sqrt(variance)), corrected
    )


def spread_differences(exponents: Sequence[Exponents], *, ci_level: float) -> pd.DataFrame:
    """Spread of the deeper network minus that of the shallower, with Welch's intervals.

    Columns: depth_a < depth_b, last_level, stage, quantity, mean, low, high; of `sd`.
    """
    rows = []
    with_spread = [found for found in exponents if num_normal(found.depth) > 1]
    for a, b in combinations(sorted(with_spread, key=lambda found: found.depth), 2):
        if a.last_level != b.last_level:
            continue
        for quantity in SPREAD_OF:
            of_a, of_b = (
                np.stack([spread(found.values[quantity][stage]).sd for stage in STAGES], axis=1)
                for found in (a, b)
            )
            of_a, of_b = (np.column_stack([x, x.mean(axis=1)]) for x in (of_a, of_b))
            interval = welch_interval(of_b, of_a, ci_level=ci_level)
            columns = {
                "depth_a": a.depth,
                "depth_b": b.depth,
                "last_level": a.last_level,
                "stage": [*STAGES, ALL_STAGES],
                "quantity": quantity,
                **interval._asdict(),
            }
            rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def mismatch_by_stage(
    source: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray], block_map: BlockMap
) -> dict[str, float]:
    """`sigma_mismatch` of each stage and, as ``rms``, over all stages."""
    found = {stage: float(sigma_mismatch(source[stage], target[stage], block_map))
             for stage in STAGES}  # fmt: skip
    return found | {"rms": float(np.sqrt(np.mean(np.square([*found.values()]))))}


def paper_frame() -> pd.DataFrame:
    """Mismatch of the paper's own printed exponents under the maps it argues with.

    Columns: map, source_depth, target_depth, blocks, expected (what the study saw: better or
    worse), stage1 to stage3, rms.
    """
    rows = []
    for name, (source, target, block_map, is_worse) in NAMED_MAPS.items():
        of_source, of_target = (_by_stage(cifar_resnet_sigma(depth)) for depth in (source, target))
        rows.append({
            "map": name,
            "source_depth": source,
            "target_depth": target,
            "blocks": block_map.notation,
            "expected": "worse" if is_worse else "better",
            **mismatch_by_stage(of_source, of_target, block_map),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _by_stage(sigma: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {stage: np.array([x for block, x in sigma.items() if block.startswith(f"{stage}/")])
            for stage in STAGES}  # fmt: skip


def _columns(names: Sequence[str], stage: str, depth: int) -> list[int]:
    """Where the normal blocks of a stage stand."""
    return [names.index(f"{stage}/block{i}") for i in range(1, num_normal(depth) + 1)]


def _until(trajectory: FlowTrajectory, last_level: int) -> FlowTrajectory:
    """The levels 0 to `last_level`."""

    def cut(points: Mapping[str, FlowPoint]) -> dict[str, FlowPoint]:
        return {name: jax.tree.map(lambda x: x[:, : last_level + 1], p)
                for name, p in points.items()}  # fmt: skip

    return trajectory._replace(
        num_kept=trajectory.num_kept[: last_level + 1],
        points=cut(trajectory.points),
        nulls=cut(trajectory.nulls),
    )
