"""Runs made by other code: checkpoints, one a level, or one alone.

In: a `ForeignRun`. Out: what an `imp_rg.runs.Flow` is made of, measured level by level.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from imp_rg.config import PruneConfig
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.foreign.measure_levels import magnitude, measure_seed
from imp_rg.foreign.nulls import pruned_flows, removal_schedule
from imp_rg.foreign.run import ForeignRun
from imp_rg.imp.prune import prune_schedule
from imp_rg.nulls import gaussian_flow

DENSITY_TOLERANCE = 1e-3
"""Relative range of the densities of one level over seeds that still counts as one density."""

OnLevel = Callable[[str, int], None]
"""Told seed and level when a level has been read."""


class SeedResult(NamedTuple):
    """What one seed gives.

    Attributes:
      points: Flow at each point, fields [level block].
      nulls: Flow of each null, fields [level block].
      num_kept: Surviving prunable weights, [level].
      collapsed: Tensors without a weight left, at each level.
    """

    points: dict[str, FlowPoint]
    nulls: dict[str, FlowPoint]
    num_kept: np.ndarray
    collapsed: list[list[str]]


class MeasuredRun(NamedTuple):
    """What a run of other code gives.

    Attributes:
      trajectory: The flow and its nulls, fields [seed level block].
      settings: How it was read.
      collapsed: Tensors without a weight left, by seed and level.
    """

    trajectory: FlowTrajectory
    settings: dict[str, Any]
    collapsed: list[list[list[str]]]


def measure_run(
    run: ForeignRun, on_level: OnLevel, *, one_shot: PruneConfig, levels: int
) -> MeasuredRun:
    """Measures a run: every level of every seed, and the nulls.

    Args:
      run: As `open_run` gives it.
      on_level: Progress.
      one_shot: How a single checkpoint is pruned; runs of several levels do not use it.
      levels: Last level of that pruning.

    Returns:
      The flow. A single checkpoint gives that of one-shot pruning as `trained`.

    Raises:
      ValueError: As `measure_seed`, or if the seeds differ in density at a level.
    """
    results = []
    for i, seed in enumerate(run.layout.seeds):
        if run.is_single:
            results.append(_prune_single(run, i, one_shot=one_shot, levels=levels))
            on_level(seed, 0)
        else:
            results.append(_measure_levels(run, i, partial(on_level, seed)))
    num_kept = _common_counts(run, np.array([result.num_kept for result in results]))
    trajectory = FlowTrajectory(
        blocks=run.blocks,
        num_kept=num_kept,
        points=_stack([result.points for result in results]),
        nulls=_stack([result.nulls for result in results]),
    )
    return MeasuredRun(
        trajectory=trajectory,
        settings=_settings(run, len(num_kept), one_shot),
        collapsed=[result.collapsed for result in results],
    )


def _measure_levels(run: ForeignRun, seed: int, on_level: Callable[[int], None]) -> SeedResult:
    rewind = run.open_rewind(seed)
    if rewind is not None:
        rewind.check_shapes(run.shapes)
    openers = [partial(run.open_level, seed, n) for n in range(len(run.layout.levels[seed]))]
    flow = measure_seed(openers, rewind, shapes=run.shapes, blocks=run.blocks, on_level=on_level)
    if rewind is None:
        del flow.points["rewound"]
    prunable = np.array(run.blocks.prunable)
    survivors = flow.leaf_survivors[:, prunable]
    schedule = removal_schedule(survivors, run.sizes[prunable])
    return SeedResult(
        points=flow.points,
        nulls=_nulls(run, seed, schedule),
        num_kept=survivors.sum(axis=1),
        collapsed=[[run.prunable[k] for k in np.flatnonzero(row == 0)] for row in survivors],
    )


def _prune_single(run: ForeignRun, seed: int, *, one_shot: PruneConfig, levels: int) -> SeedResult:
    """One-shot pruning of the only checkpoint stands where the levels of a run would."""
    only = run.open_level(seed, 0)
    alive = sum(int(np.count_nonzero(only.mask(name, only.weight(name)))) for name in run.prunable)
    total = run.sizes[np.array(run.blocks.prunable)].sum()
    schedule = prune_schedule((alive,), one_shot, num_levels=levels + 1)
    schedule[0] = total - alive
    nulls = _nulls(run, seed, schedule)
    return SeedResult(
        points={"trained": nulls.pop("oneshot")},
        nulls=nulls,
        num_kept=total - schedule[:, 0].cumsum(),
        collapsed=[[] for _ in schedule],
    )


def _nulls(run: ForeignRun, seed: int, schedule: np.ndarray) -> dict[str, FlowPoint]:
    """Nulls of one seed.

    The Gaussian has the scales of the rewind weights, else those of the first level; where that is
    already pruned, of its survivors.
    """
    first, rewind = run.open_level(seed, 0), run.open_rewind(seed)
    dense = {name: first.masked(name) for name in run.prunable}
    rewound = None if rewind is None else {name: rewind.weight(name) for name in run.prunable}
    others = [name for name in run.names if name not in dense]
    unpruned = [
        0.0 if level is None else sum(magnitude(level.weight(name)) for name in others)
        for level in (first, rewind)
    ]
    scales = np.ones(len(run.names))
    for k, name in enumerate(run.names):
        if name in dense:
            source = (rewound or dense)[name]
            kept = max(np.count_nonzero(source), 1)
            scales[k] = np.sqrt(np.square(source).sum(dtype=float) / kept)
    nulls = {}
    if scales.all():  # a tensor of zeros has no Gaussian
        nulls["gaussian"] = gaussian_flow(
            run.sizes, scales, unpruned=unpruned[0], blocks=run.blocks, schedule=schedule
        )
    return nulls | pruned_flows(
        dense,
        rewound,
        unpruned=(unpruned[0], unpruned[1]),
        blocks=run.blocks,
        schedule=schedule,
        seed=seed,
    )


def _common_counts(run: ForeignRun, num_kept: np.ndarray) -> np.ndarray:
    """Survivors of each level, which must be the same for all seeds but for rounding."""
    mean = num_kept.mean(axis=0)
    deviation = np.abs(num_kept / mean - 1)
    if deviation.max() > DENSITY_TOLERANCE:
        seed, level = np.unravel_index(deviation.argmax(), deviation.shape)
        raise ValueError(
            f"{run.path}: seeds must agree in density within {DENSITY_TOLERANCE:.1%}, seed "
            f"{run.layout.seeds[seed]} keeps {num_kept[seed, level]:,} weights at level {level}, "
            f"{mean[level]:,.0f} on average; give seeds that differ as runs of their own"
        )
    return mean.round().astype(int)


def _stack(flows: list[dict[str, FlowPoint]]) -> dict[str, FlowPoint]:
    """Adds the seed axis; only what every seed has is kept."""
    names = [name for name in flows[0] if all(name in flow for flow in flows)]
    return {
        name: FlowPoint(*map(np.stack, zip(*(flow[name] for flow in flows), strict=True)))
        for name in names
    }


def _settings(run: ForeignRun, num_levels: int, one_shot: PruneConfig) -> dict[str, Any]:
    files = run.layout.levels[0]
    settings = {
        "source": str(run.path),
        "kind": run.layout.kind,
        "blocks": run.rules.name,
        "denominator": run.rules.denominator,
        "block_names": list(run.blocks.names),
        "num_listed": run.blocks.num_listed,
        "num_prunable": sum(run.blocks.sizes),
        "num_weights": int(run.sizes.sum()),
        "other_parts": list(run.other_parts),
        "seeds": len(run.layout.seeds),
        "levels": num_levels - 1,
        "files": [level.weights.name for level in files],
        "rewind": [None if path is None else path.name for path in run.layout.rewind],
    }
    if run.is_single:
        settings |= {"prune_fraction": one_shot.prune_fraction, "fraction_of": one_shot.fraction_of}
    return settings
