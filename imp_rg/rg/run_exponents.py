"""What comparing needs of one run, and whether it is whole.

In: arrays of one run. Out: a `RunExponents`, or one line that says what does not fit.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from imp_rg.rg.distance import at_densities, common_densities
from imp_rg.rg.matching import BlockMatch


class RunExponents(NamedTuple):
    """What comparing needs of one run.

    Attributes:
      name: Unique among the runs compared.
      blocks: Listed blocks (without `rest`) in order of depth.
      sigma: Exponents by the paper's estimator; NaN where a seed has none.
      excess: By null, the per-seed differences from it.
      density: Kept fraction at each level, falling.
      param_share: Share of the surviving weights held by each block.
    """

    name: str
    blocks: tuple[str, ...]
    sigma: Float[np.ndarray, "seed block"]
    excess: dict[str, Float[np.ndarray, "seed block"]]
    density: Float[np.ndarray, " level"]
    param_share: Float[np.ndarray, "seed level block"]


def share_profiles(
    a: RunExponents, b: RunExponents, match: BlockMatch
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of surviving weights at common places and densities, [seed density*place].

    Linear in ln density, at all densities of both runs within their common range; where blocks are
    interpolated, times the number of blocks in the stage, which makes it a profile over depth.

    References:
      House definition.
    """
    densities = common_densities(a.density, b.density)
    of_a, of_b = (
        at_densities(place(run.param_share) * place.num_in_stage, run.density, densities)
        for run, place in ((a, match.a), (b, match.b))
    )
    return of_a, of_b


def check_runs(runs: tuple[RunExponents, ...]) -> None:
    """Checks that runs can be compared.

    Raises:
      ValueError: If there are fewer than two, names are not unique, or shapes do not fit.
    """
    names = [run.name for run in runs]
    if len(runs) < 2:
        raise ValueError(f"runs: must be at least two to compare, got {len(runs)}")
    if len(set(names)) < len(names):
        raise ValueError(f"runs: must have different names, got {names}")
    for run in runs:
        num_seeds, num_blocks = len(run.sigma), len(run.blocks)
        shapes = {"sigma": np.shape(run.sigma)}
        shapes |= {f"excess[{null!r}]": np.shape(x) for null, x in run.excess.items()}
        for field, shape in shapes.items():
            if shape != (num_seeds, num_blocks) or 0 in shape:
                raise ValueError(
                    f"runs: {field} of {run.name!r} must be [seed block] = "
                    f"({num_seeds}, {num_blocks}), none empty, got {shape}"
                )
        want = (num_seeds, len(run.density), num_blocks)
        if np.shape(run.param_share) != want:
            raise ValueError(
                f"runs: param_share of {run.name!r} must be [seed level block] = {want}, "
                f"got {np.shape(run.param_share)}"
            )
        density = np.asarray(run.density, float)
        if not (np.all(np.diff(density) < 0) and np.all((density > 0) & (density <= 1))):
            raise ValueError(f"runs: density of {run.name!r} must fall in (0, 1], got {density}")
