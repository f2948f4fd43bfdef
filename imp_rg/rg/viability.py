"""The lowest density at which a ticket still transfers, and the levels where that means anything.

In: what transfers at each level, or a function that finds out. Out: `MinimalDensity`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from imp_rg.config import require
from imp_rg.rg.ticket_transfer import SATURATED_BELOW


@dataclass(frozen=True, kw_only=True)
class MinimalDensity:
    """The lowest density at which a ticket still transfers.

    Attributes:
      level: The last level before the first one, from the densest, that fails; None if the densest
        fails.
      density: Its density; infinite without a level, so that it sorts behind all others.
      is_bound: Whether no level fails: the true minimum may be lower.
      is_monotone: Whether no sparser level looked at transfers again. If one does, the noise of the
        metric decides where the first failure lies.
      num_evaluations: Levels looked at.
    """

    level: int | None
    density: float
    is_bound: bool
    is_monotone: bool
    num_evaluations: int


def minimal_density(
    transfers: Callable[[int], bool] | Bool[np.ndarray, " level"],
    density: Float[np.ndarray, " level"],
) -> MinimalDensity:
    """Finds the lowest density that transfers, from all levels or by halving those in between.

    The search takes for granted that a ticket transfers down to some density and at none below.
    Then the result is that of all levels, after at most 2 + log2(number of levels) of them, rounded
    up. If the densest level fails but the sparsest transfers it stops there and says so
    (`is_monotone` False). A dip or a bump in between goes unnoticed by the search: what it finds
    then transfers while the next level does not. Only give levels at which there is something to
    transfer, see `viable_levels`.

    Args:
      transfers: Whether the ticket of each level transfers: all of them, or a function of the index
        into `density`, asked once for each level that the search needs.
      density: Density of each level, falling.

    Returns:
      The `MinimalDensity`.

    Raises:
      ValueError: If `density` does not fall or is not in (0, 1], or the lengths differ.

    References:
      House definition.
    """
    density = _check_density(density)
    if callable(transfers):
        return _lowest(_search(transfers, len(density)), density)
    of_level = np.asarray(transfers, bool)
    require(
        of_level.shape == density.shape, "transfers", "must have one value a level", of_level.shape
    )
    return _lowest(dict(enumerate(of_level.tolist())), density)


def viable_levels(
    own: Float[np.ndarray, "level target"],
    dense: Float[np.ndarray, " target"],
    floor: Float[np.ndarray, " target"],
) -> Int[np.ndarray, " target"]:
    """How many levels, from the densest, have a ticket worth the name.

    Where a target's own ticket learns nothing any more, every ticket is as good as it. So its own
    ticket has to keep half of what the dense network gains, at this level and all denser ones.

    Args:
      own: Metric of each target's own ticket, percent; levels from the densest; NaN where it is not
        known, which ends nothing.
      dense: Of the dense network.
      floor: Of networks that learn nothing, such as the worst random masks.

    Returns:
      The number of levels; 0 where the dense network gains less than `SATURATED_BELOW` points.

    References:
      House definition.
    """
    own, dense, floor = (np.asarray(x, float) for x in (own, dense, floor))
    is_viable = ~(own < (dense + floor) / 2) & (dense - floor >= SATURATED_BELOW)
    return np.logical_and.accumulate(is_viable, axis=0).sum(axis=0)


def _search(transfers_fn: Callable[[int], bool], num_levels: int) -> dict[int, bool]:
    """The levels that halving looks at."""
    first, last = 0, num_levels - 1
    seen = {level: bool(transfers_fn(level)) for level in range(0, num_levels, max(last, 1))}
    if seen[first] and not seen[last]:
        while last - first > 1:
            middle = (first + last) // 2
            seen[middle] = bool(transfers_fn(middle))
            first, last = (middle, last) if seen[middle] else (first, middle)
    return seen


def _lowest(seen: dict[int, bool], density: np.ndarray) -> MinimalDensity:
    first_failure = min((n for n, transfers in seen.items() if not transfers), default=len(density))
    level = max((n for n in seen if n < first_failure), default=None)
    return MinimalDensity(
        level=level,
        density=np.inf if level is None else float(density[level]),
        is_bound=level == len(density) - 1,
        is_monotone=not any(transfers for n, transfers in seen.items() if n > first_failure),
        num_evaluations=len(seen),
    )


def _check_density(density: np.ndarray) -> np.ndarray:
    density = np.asarray(density, float)
    is_series = density.ndim == 1 and len(density) > 0
    require(is_series, "density", "must have one value a level", density.shape)
    is_falling = bool(np.all(np.diff(density) < 0) and 0 < density[-1] and density[0] <= 1)
    require(is_falling, "density", "must fall inside (0, 1]", density.tolist())
    return density
