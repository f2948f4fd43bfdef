"""Exponents of several depths, block by block, and how much they differ within a stage.

In: the flow of each depth. Out: ``sigma.csv`` (the paper's Tables 4 to 6 with nulls),
``spread.csv``, ``spread_differences.csv``, and ``paper_mismatch.csv``: what the printed tables say
of the maps that the paper argues with.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from experiments.studies.elastic.config import num_normal
from experiments.studies.elastic.run import STAGES
from imp_rg.published import cifar_resnet_sigma
from imp_rg.rg.estimate import contrast, summarise
from imp_rg.rg.stats import BlockSd, block_sd
from imp_rg.runs import Flow, frames
from imp_rg.runs.tables import flow_spectrum
from imp_rg.tickets.block_maps import BlockMap, sigma_mismatch
from imp_rg.tickets.stretching import NAMED_MAPS

NULLS = ("init", "oneshot", "gaussian")
ALL_STAGES = "mean of stages"

SD_OF = ("sigma", "excess_init", "excess_oneshot", "sigma_init", "sigma_oneshot", "sigma_gaussian")
"""Quantities whose standard deviation over blocks is compared."""


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
        return {stage: summarise(x).value for stage, x in self.values[quantity].items()}


def read_exponents(flow: Flow, depth: int, *, last_level: int) -> Exponents:
    """Exponents of levels 0 to `last_level`; a block without weights left has none (NaN)."""
    trajectory = flow.trajectory.until(last_level)

    def sigma(**options: Any) -> np.ndarray:
        return flow_spectrum(trajectory, **options).sigma_per_seed["paper"]

    per_block = {"sigma": sigma(), "param_share": sigma(quantity="param_share")}
    for null in NULLS:
        per_block[f"sigma_{null}"] = sigma(null=null)
        per_block[f"excess_{null}"] = per_block["sigma"] - per_block[f"sigma_{null}"]
    names, blocks = trajectory.blocks.names, range(1, num_normal(depth) + 1)
    columns = {
        stage: [names.index(f"{stage}/block{block}") for block in blocks] for stage in STAGES
    }
    values = {
        name: {stage: x[:, found] for stage, found in columns.items()}
        for name, x in per_block.items()
    }
    return Exponents(depth, last_level, values)


def sigma_frame(exponents: Sequence[Exponents], *, ci_level: float) -> pd.DataFrame:
    """One row per depth, range of levels and normal block: sigma, nulls, excess, printed value."""
    found = []
    for depth, last_level, values in exponents:
        paper = cifar_resnet_sigma(depth)
        for stage in STAGES:
            blocks = [f"{stage}/block{i + 1}" for i in range(num_normal(depth))]
            frame = frames.sigma_frame(
                values["sigma"][stage],
                blocks,
                {"depth": depth, "last_level": last_level, "stage": stage},
                ci_level=ci_level,
                nulls={null: values[f"sigma_{null}"][stage] for null in NULLS},
            ).rename(columns={"low": "sigma_low", "high": "sigma_high"})
            found.append(frame.assign(paper=[paper[block] for block in blocks]))
    ends = [f"{name}{end}" for name in ("sigma", *(f"excess_{null}" for null in NULLS))
            for end in ("", "_low", "_high")]  # fmt: skip
    of_nulls = [f"sigma_{null}" for null in NULLS]
    names = ["depth", "last_level", "stage", "block", *ends, *of_nulls, "paper", "num_seeds"]
    return pd.concat(found, ignore_index=True)[names]


def spread_frame(exponents: Sequence[Exponents], *, ci_level: float) -> pd.DataFrame:
    """`block_sd` over the normal blocks of a stage, by depth, stage and quantity.

    `sd` and `range` are means over seeds, `sd` with its t-interval: scatter between seeds adds to
    it. To `sd_of_mean` it adds less, and from `sd_corrected` it is taken out (two-way analysis of
    variance). `range` grows with the number of blocks by itself. A stage with one normal block has
    no row.
    """
    rows = []
    for depth, last_level, values in exponents:
        if num_normal(depth) < 2:
            continue
        paper_sd = {
            stage: x.std(ddof=1) for stage, x in _by_stage(cifar_resnet_sigma(depth)).items()
        }
        paper_sd[ALL_STAGES] = np.mean([*paper_sd.values()])
        for quantity in SD_OF:
            found = {stage: block_sd(values[quantity][stage]) for stage in STAGES}
            all_stages = zip(*found.values(), strict=True)
            found[ALL_STAGES] = BlockSd(*(np.mean(x, axis=0) for x in all_stages))
            for stage, of_stage in found.items():
                rows.append({
                    "depth": depth,
                    "last_level": last_level,
                    "stage": stage,
                    "quantity": quantity,
                    "num_blocks": num_normal(depth),
                    **summarise(of_stage.sd, ci_level=ci_level).columns("sd"),
                    "range": float(summarise(of_stage.range).value),
                    "sd_of_mean": float(of_stage.of_mean),
                    "sd_corrected": float(of_stage.corrected),
                    "paper_sd": paper_sd[stage] if quantity == "sigma" else np.nan,
                })  # fmt: skip
    return pd.DataFrame(rows)


def spread_differences(exponents: Sequence[Exponents], *, ci_level: float) -> pd.DataFrame:
    """`sd` over blocks of the deeper network minus that of the shallower, with Welch's intervals.

    Columns: depth_a < depth_b, last_level, stage, quantity, mean, low, high.
    """
    rows = []
    several = [found for found in exponents if num_normal(found.depth) > 1]
    for a, b in combinations(sorted(several, key=lambda found: found.depth), 2):
        if a.last_level != b.last_level:
            continue
        for quantity in SD_OF:
            of_a, of_b = (
                np.stack([block_sd(found.values[quantity][stage]).sd for stage in STAGES], axis=1)
                for found in (a, b)
            )
            of_a, of_b = (np.column_stack([x, x.mean(axis=1)]) for x in (of_a, of_b))
            mean, low, high = contrast(of_b, of_a, is_paired=False, ci_level=ci_level)
            columns = {
                "depth_a": a.depth,
                "depth_b": b.depth,
                "last_level": a.last_level,
                "stage": [*STAGES, ALL_STAGES],
                "quantity": quantity,
                "mean": mean,
                "low": low,
                "high": high,
            }
            rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def mismatch_by_stage(
    source: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray], block_map: BlockMap
) -> dict[str, float]:
    """`sigma_mismatch` of each stage and, as ``rms``, over all stages."""
    found = {
        stage: float(sigma_mismatch(source[stage], target[stage], block_map)) for stage in STAGES
    }
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
    return {
        stage: np.array([x for block, x in sigma.items() if block.startswith(f"{stage}/")])
        for stage in STAGES
    }
