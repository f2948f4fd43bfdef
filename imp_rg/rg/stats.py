"""Statistics over seeds: intervals and tests with honest small-sample coverage; rank correlation.

In: one value per seed, seeds first, any further axes. Out: one result per position of those axes.
Levels are a fixed design and are never resampled; only seeds are replicates. A percentile bootstrap
of three normal values covers 67 %, the t-interval 95 %.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats


class SeedInterval(NamedTuple):
    """Mean over seeds with its t-interval.

    Attributes:
      mean: Mean of the seeds that have a value; NaN if none has.
      low: Lower end; NaN with fewer than two values.
      high: Upper end; NaN with fewer than two values.
      sem: Standard error of the mean; NaN with fewer than two values.
      num_seeds: How many seeds have a value.
    """

    mean: Float[np.ndarray, "*axes"]
    low: Float[np.ndarray, "*axes"]
    high: Float[np.ndarray, "*axes"]
    sem: Float[np.ndarray, "*axes"]
    num_seeds: Int[np.ndarray, "*axes"]


def t_interval(values: Float[np.ndarray, "seed *axes"], *, ci_level: float = 0.95) -> SeedInterval:
    """Student's interval of the mean over seeds, mean +- t(S-1) sd / sqrt(S).

    Args:
      values: One value per seed; NaN where a seed has none, which leaves it out.
      ci_level: Coverage in (0, 1).

    Returns:
      A `SeedInterval`.

    Raises:
      ValueError: If `values` has no seed axis, or `ci_level` is not in (0, 1).

    References:
      Student, Biometrika 6 (1908).
    """
    values = _as_seeds(values)
    if not 0 < ci_level < 1:
        raise ValueError(f"ci_level must be in (0, 1), got {ci_level}")
    mean, sem, num_seeds = _mean_and_sem(values)
    half_width = stats.t.ppf(0.5 + ci_level / 2, _degrees_of_freedom(num_seeds)) * sem
    return SeedInterval(
        mean=mean,
        low=np.asarray(mean - half_width),
        high=np.asarray(mean + half_width),
        sem=sem,
        num_seeds=num_seeds,
    )


class BlockSd(NamedTuple):
    """How much exponents differ over blocks.

    Attributes:
      sd: Standard deviation over blocks, of each seed.
      range: Largest minus smallest, of each seed.
      of_mean: Standard deviation over blocks of the means over seeds.
      corrected: `of_mean` without what scatter between seeds adds to it; 0 where that is all there
        is.
    """

    sd: Float[np.ndarray, " seed"]
    range: Float[np.ndarray, " seed"]
    of_mean: float
    corrected: float


def block_sd(values: Float[np.ndarray, "seed block"]) -> BlockSd:
    """How much at least two blocks differ; NaN where one has no exponent. House definition."""
    num_seeds = len(values)
    mean = values.mean(axis=0)
    variance = mean.var(ddof=1)
    if num_seeds < 2:
        corrected = np.nan
    else:
        residual = values - values.mean(axis=1, keepdims=True) - mean + mean.mean()
        scatter = np.sum(residual**2) / (num_seeds - 1) / (values.shape[1] - 1)
        corrected = np.sqrt(np.maximum(variance - scatter / num_seeds, 0))
    sd, range_ = values.std(axis=1, ddof=1), np.ptp(values, axis=1)
    return BlockSd(sd, range_, float(np.sqrt(variance)), corrected)


def mean_is_zero_p(values: Float[np.ndarray, "seed *axes"]) -> Float[np.ndarray, "*axes"]:
    """Two-sided p-value of the one-sample t-test that the mean over seeds is zero.

    Args:
      values: One value per seed; NaN leaves a seed out.

    Returns:
      The p-value; NaN with fewer than two values. Seeds that agree to the last bit give 1
      if they agree on zero, else 0.

    Raises:
      ValueError: If `values` has no seed axis.

    References:
      Student, Biometrika 6 (1908).
    """
    mean, sem, num_seeds = _mean_and_sem(_as_seeds(values))
    scaled = np.divide(np.abs(mean), sem, out=np.full_like(mean, np.inf), where=sem != 0)
    scaled = np.where((sem == 0) & (mean == 0), 0.0, scaled)
    return np.asarray(2 * stats.t.sf(scaled, _degrees_of_freedom(num_seeds)))


def rank_correlation(
    x: Float[np.ndarray, "*row cell"], y: Float[np.ndarray, "*row cell"]
) -> Float[np.ndarray, "*row"]:
    """Spearman's correlation of each row over the cells known in both; ties share their rank.

    NaN with fewer than three such cells or if either is constant on them.

    Args:
      x: Any numbers; NaN where a cell is not known.
      y: Any numbers; NaN where a cell is not known.

    References:
      Spearman, Am. J. Psychol. 15 (1904). SciPy's `spearmanr` takes one pair of rows at a time.
    """
    is_known = ~(np.isnan(x) | np.isnan(y))
    num = is_known.sum(axis=-1)

    def centred(values: np.ndarray) -> np.ndarray:
        ranks = stats.rankdata(np.where(is_known, values, np.nan), axis=-1, nan_policy="omit")
        return np.where(is_known, ranks - (num[..., None] + 1) / 2, 0)

    x, y = centred(x), centred(y)
    scale = np.asarray(np.sqrt(np.sum(x**2, axis=-1) * np.sum(y**2, axis=-1)))
    is_defined = (scale > 0) & (num > 2)
    return np.divide(
        np.sum(x * y, axis=-1), scale, out=np.full(scale.shape, np.nan), where=is_defined
    )


def _as_seeds(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, float)
    if array.ndim == 0 or array.shape[0] == 0:
        raise ValueError(f"values must have at least one seed, got shape {array.shape}")
    return array


def _mean_and_sem(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, its standard error and the count over axis 0, NaN entries left out."""
    has_value = ~np.isnan(values)
    num = np.asarray(has_value.sum(axis=0))
    mean = np.where(num > 0, np.nansum(values, axis=0) / np.maximum(num, 1), np.nan)
    squares = np.where(has_value, values - mean, 0.0) ** 2
    variance = np.where(num > 1, squares.sum(axis=0) / np.maximum(num - 1, 1), np.nan)
    return mean, np.asarray(np.sqrt(variance / np.maximum(num, 1))), num


def _degrees_of_freedom(num_seeds: np.ndarray) -> np.ndarray:
    return np.where(num_seeds > 1, num_seeds - 1.0, np.nan)
