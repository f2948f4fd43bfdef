"""Distance of two flows with its permutation test.

In: values of two runs at common places, seeds first. Out: a `PairResult`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from imp_rg.rg.permutation import permutation_test


class PairResult(NamedTuple):
    """One measure of one pair of runs.

    Attributes:
      distance: Root mean square over places of the difference of the means.
      distance_se: Distance in units of the standard error; NaN without scatter.
      p_value: Of the permutation test over seeds.
      p_smallest: The smallest value it could have taken.
      num_seeds: Seeds of the run with fewer that have a value at all places compared.
    """

    distance: float
    distance_se: float
    p_value: float
    p_smallest: float
    num_seeds: int


UNDEFINED = PairResult(np.nan, np.nan, np.nan, np.nan, 0)


def compare_values(
    a: Float[np.ndarray, "seed place"],
    b: Float[np.ndarray, "other_seed place"],
    *,
    scatter: Float[np.ndarray, " place"] | None = None,
    num_permutations: int = 20_000,
    seed: int = 0,
) -> PairResult:
    """Compares the values of two runs.

    A place counts if both runs have a value there in some seed; the test then takes the seeds that
    have a value at all such places.

    Args:
      a: Values of the first run; NaN where a seed has none.
      b: Values of the second run.
      scatter: Standard deviation between seeds; None leaves `distance_se` NaN.
      num_permutations: See `permutation_test`.
      seed: See `permutation_test`.

    Returns:
      A `PairResult`; `UNDEFINED` if no place counts.

    References:
      House definition.
    """
    is_known = ~(np.isnan(a).all(axis=0) | np.isnan(b).all(axis=0))
    if not is_known.any():
        return UNDEFINED
    a, b = a[:, is_known], b[:, is_known]
    difference = np.nanmean(a, axis=0) - np.nanmean(b, axis=0)
    distance_se = np.nan
    if scatter is not None and np.all(scatter[is_known] > 0):
        num_a, num_b = (np.sum(~np.isnan(x), axis=0) for x in (a, b))
        distance_se = _rms(difference / scatter[is_known] / np.sqrt(1 / num_a + 1 / num_b))
    a, b = (x[~np.isnan(x).any(axis=1)] for x in (a, b))
    test = permutation_test(a, b, num_permutations=num_permutations, seed=seed)
    return PairResult(
        distance=_rms(difference),
        distance_se=distance_se,
        p_value=test.p_value,
        p_smallest=test.p_smallest,
        num_seeds=min(len(a), len(b)),
    )


def pooled_scatter(
    values: Sequence[Float[np.ndarray, "_seed place"]],
) -> Float[np.ndarray, " place"]:
    """Standard deviation between seeds, pooled over runs; NaN where no run has two seeds.

    References:
      House definition.
    """
    squares, freedom = np.zeros(values[0].shape[1]), np.zeros(values[0].shape[1])
    for of_run in values:
        has_value = ~np.isnan(of_run)
        num = has_value.sum(axis=0)
        mean = np.where(has_value, of_run, 0).sum(axis=0) / np.maximum(num, 1)
        squares += (np.where(has_value, of_run - mean, 0) ** 2).sum(axis=0)
        freedom += np.maximum(num - 1, 0)
    return np.where(freedom > 0, np.sqrt(squares / np.maximum(freedom, 1)), np.nan)


def common_densities(
    a: Float[np.ndarray, " level"], b: Float[np.ndarray, " other_level"]
) -> Float[np.ndarray, " density"]:
    """All densities of two runs within the range that both cover. House definition."""
    densities = np.unique(np.concatenate([a, b]))
    is_common = (densities >= max(a.min(), b.min())) & (densities <= min(a.max(), b.max()))
    return densities[is_common]


def at_densities(
    shares: Float[np.ndarray, "seed level place"],
    density: Float[np.ndarray, " level"],
    wanted: Float[np.ndarray, " wanted"],
) -> Float[np.ndarray, "seed wanted*place"]:
    """Shares at other densities, linear in ln density, as one row per seed. House definition."""
    time, places = -np.log(density), -np.log(wanted)
    low = np.clip(np.searchsorted(time, places, side="right") - 1, 0, max(len(time) - 2, 0))
    high = np.minimum(low + 1, len(time) - 1)
    step = np.where(high > low, time[high] - time[low], 1)
    fraction = (places - time[low]) / step
    low, high = np.where(fraction == 1, high, low), np.where(fraction == 0, low, high)  # skip NaN
    found = shares[:, low] * (1 - fraction[:, None]) + shares[:, high] * fraction[:, None]
    return found.reshape(len(shares), -1)


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))
