"""Flows compared: do runs share their exponents, their densities by block, their masks?

In: flows or paths. Out: a `Comparison` (`imp_rg.rg.universality`).
"""

from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np

from imp_rg.imp.overlap import mask_overlap
from imp_rg.rg.universality import Comparison, RunExponents, compare_exponents
from imp_rg.runs.flow import Flow
from imp_rg.runs.recognize import read
from imp_rg.types import Float

NULLS = ("init", "oneshot", "gaussian")
"""Nulls whose excess is compared where all runs have them."""

MATCHED_DENSITY = 0.01
"""Relative difference up to which the densities of two levels count as equal."""

MAX_SEED_PAIRS = 9
"""Pairs of seeds over which a mask overlap is averaged; each costs two networks to read."""


def compare(runs: Sequence[Flow | str | Path], *, ci_level: float = 0.95) -> Comparison:
    """Compares flows: distances, tests over seeds, classes.

    Args:
      runs: At least two flows, or paths for `imp_rg.read`.
      ci_level: Coverage of the intervals, in (0, 1).

    Returns:
      A `Comparison`: distances of the exponents raw and in excess of each null that all runs have,
      of the density profiles, and the mask overlap above chance where tensors agree.

    Raises:
      ValueError: If there are fewer than two runs, two of the same name, or blocks that cannot be
        matched.

    References:
      House definition, after Redman et al., arXiv:2110.03210, Sec. 5 (equal exponents, one class).
    """
    flows = [run if isinstance(run, Flow) else read(run) for run in runs]
    return compare_exponents(
        [run_exponents(flow) for flow in flows],
        mask_overlap=overlap_matrix(flows),
        ci_level=ci_level,
    )


def run_exponents(flow: Flow) -> RunExponents:
    """What comparing needs of a flow; listed blocks only. House definition."""
    listed = slice(flow.trajectory.blocks.num_listed)
    sigma = flow.spectrum().sigma_per_seed["paper"]
    excess = {
        null: (sigma - flow.null_spectrum(null).sigma_per_seed["paper"])[:, listed]
        for null in NULLS
        if null in flow.trajectory.nulls
    }
    return RunExponents(
        name=flow.name,
        blocks=flow.trajectory.blocks.names[listed],
        sigma=sigma[:, listed],
        excess=excess,
        density=flow.trajectory.density,
        param_share=np.asarray(flow.trajectory.points["trained"].param_share)[..., listed],
    )


def overlap_matrix(flows: Sequence[Flow]) -> Float[np.ndarray, "run run"]:
    """Jaccard overlap of masks minus chance at the lowest matched density, mean over seed pairs.

    Args:
      flows: The runs.

    Returns:
      Overlap above chance; on the diagonal between the seeds of a run. NaN where tensors differ, a
      run has no masks on disk, or no level below density 1 matches.

    References:
      House definition; chance as in `imp_rg.imp.overlap.mask_overlap`.
    """
    matrix = np.full((len(flows), len(flows)), np.nan)
    for i, j in product(range(len(flows)), repeat=2):
        if i <= j:
            matrix[i, j] = matrix[j, i] = _overlap(flows[i], flows[j])
    return matrix


def _overlap(a: Flow, b: Flow) -> float:
    levels = _matched_levels(a, b)
    if a.read_masks is None or b.read_masks is None or levels is None:
        return np.nan
    seeds = [range(len(flow.seeds)) for flow in (a, b)]
    pairs = list(combinations(seeds[0], 2) if a is b else product(*seeds))[:MAX_SEED_PAIRS]
    values = []
    for seed_a, seed_b in pairs:
        masks_a, masks_b = a.read_masks(seed_a, levels[0]), b.read_masks(seed_b, levels[1])
        shapes = [{k: v.shape for k, v in masks.items()} for masks in (masks_a, masks_b)]
        if shapes[0] != shapes[1]:
            return np.nan
        overlap = mask_overlap(masks_a.values(), (masks_b[name] for name in masks_a))
        values.append(overlap.above_chance)
    return float(np.mean(values)) if values else np.nan


def _matched_levels(a: Flow, b: Flow) -> tuple[int, int] | None:
    """The levels of lowest density that both runs have."""
    density_a, density_b = a.trajectory.density, b.trajectory.density
    for level_a in range(len(density_a))[::-1]:
        level_b = int(np.abs(np.log(density_b / density_a[level_a])).argmin())
        if density_a[level_a] < 1 and (
            abs(density_b[level_b] / density_a[level_a] - 1) <= MATCHED_DENSITY
        ):
            return level_a, level_b
    return None
