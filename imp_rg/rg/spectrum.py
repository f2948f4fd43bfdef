"""Exponents of an IMP flow: how fast the share of each block grows under pruning.

In: shares [seed level block] and the scale factor of each level. Out: a `Spectrum` with exponents
by estimator, intervals over seeds, and tests of whether the shares scale exponentially at all.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from imp_rg.rg.stats import mean_is_zero_p, t_interval

CLASSIFYING = ("paper", "slope")
"""Estimators whose zero is the border of relevance."""

MIN_WINDOW = 5
"""Fewest levels of a scaling window."""

REJECTION_LEVEL = 0.05
"""A curvature with a smaller p-value is taken for real."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Exponents sigma of every block; dicts are keyed by estimator, see `measure_spectrum`.

    A share that is NaN or zero at some level (a stopped seed, a collapsed block) has no exponent:
    that seed is left out for that block, and in the log-ratio for all blocks if the block is
    listed. The other seeds count, and `num_seeds` says how many. With one seed there is no interval
    (NaN) and the relevance is undetermined.

    Attributes:
      sigma: Mean over seeds of the exponents.
      ci_low: Lower end of the t-interval over seeds.
      ci_high: Upper end of the t-interval over seeds.
      sigma_per_seed: The exponents of each seed.
      num_seeds: How many seeds counted.
      sem_seeds: Standard error over seeds.
      sem_levels: Standard error over levels of sigma_i(n), averaged over seeds. Levels are no
        replicates: to compare with the paper only.
      lambda_mean: Mean eigenvalue over levels and seeds.
      lambda_sem_rel: Standard error over levels of the eigenvalue, relative to its mean, averaged
        over seeds; the paper's "SEM < 5 %".
      eigenvalues: lambda_i(n) = M_i(n+1) / M_i(n).
      running: sigma_i(n) = ln lambda_i(n) / ln c(n).
      running_ci_low: Lower end over the seeds that have a value at that level.
      running_ci_high: Upper end over the seeds that have a value at that level.
      curvature_p: p-value of no curvature of the centred log-ratio in RG time; NaN with one seed.
      window: First and last level of the scaling window, -1 where there is none: the longest run
        (of equals the first) of at least `MIN_WINDOW` levels on which curvature is not rejected.
      window_sigma: Exponent by the paper's estimator within the window. *Selected* on the data, so
        biased towards looking exponential.
    """

    sigma: dict[str, Float[np.ndarray, " block"]]
    ci_low: dict[str, Float[np.ndarray, " block"]]
    ci_high: dict[str, Float[np.ndarray, " block"]]
    sigma_per_seed: dict[str, Float[np.ndarray, "seed block"]]
    num_seeds: dict[str, Int[np.ndarray, " block"]]
    sem_seeds: dict[str, Float[np.ndarray, " block"]]
    sem_levels: Float[np.ndarray, " block"]
    lambda_mean: Float[np.ndarray, " block"]
    lambda_sem_rel: Float[np.ndarray, " block"]
    eigenvalues: Float[np.ndarray, "seed transition block"]
    running: Float[np.ndarray, "seed transition block"]
    running_ci_low: Float[np.ndarray, "transition block"]
    running_ci_high: Float[np.ndarray, "transition block"]
    curvature_p: Float[np.ndarray, " block"]
    window: Int[np.ndarray, "block 2"]
    window_sigma: Float[np.ndarray, " block"]

    @property
    def relevance(self) -> Shaped[np.ndarray, " block"]:
        """Class of each block by the paper's estimator; see `classify`."""
        return self.classify("paper")

    def classify(self, estimator: str) -> Shaped[np.ndarray, " block"]:
        """Class of each block: relevant, irrelevant, marginal, or undetermined without interval.

        Args:
          estimator: One of `CLASSIFYING`.

        Returns:
          Strings; marginal means that the interval holds zero.

        Raises:
          ValueError: If the zero of the estimator is not the border of relevance.

        References:
          Redman et al., arXiv:2110.03210, Sec. 4, where a mean without interval decides.
        """
        if estimator not in CLASSIFYING:
            raise ValueError(f"estimator must be one of {CLASSIFYING}, got {estimator!r}")
        low, high = self.ci_low[estimator], self.ci_high[estimator]
        return np.select(
            [np.isnan(low), low > 0, high < 0],
            ["undetermined", "relevant", "irrelevant"],
            default="marginal",
        )


def measure_spectrum(
    shares: Float[np.ndarray, "seed level block"],
    scale_factor: float | Float[np.ndarray, " transition"],
    *,
    magnitude: Float[np.ndarray, "seed level block"] | None = None,
    listed: int | None = None,
    ci_level: float = 0.95,
) -> Spectrum:
    """Measures the exponents of a flow.

    With RG time l = sum of ln c: `paper` is the mean over levels of ln lambda_i(n) / ln c(n),
    `slope` the least-squares slope of ln M_i against l, `logratio` that of ln M_i - mean_k ln M_k
    over the listed blocks, `absolute` that of ln W_i.

    Args:
      shares: Shares M_i(n) (or P_i) in [0, 1]; NaN where a seed stopped.
      scale_factor: c(n) = density(n) / density(n+1) > 1 of each transition, or of all.
      magnitude: Magnitudes W_i(n); adds the estimator `absolute`.
      listed: Number of leading blocks that centre the log-ratio (those before `rest`); None is all.
      ci_level: Coverage of the intervals, in (0, 1).

    Returns:
      A `Spectrum`.

    Raises:
      ValueError: If shapes do not fit, there are fewer than two levels, or a value is out of range.

    References:
      Redman et al., arXiv:2110.03210, Eqs. 13-14, for `paper`; the others are house definitions.
      The text takes c < 1, its appendix A c = 1 / (1 - x) > 1; the latter is used.
    """
    shares = _check_shares(shares)
    log_c = _check_scale_factor(scale_factor, num_levels=shares.shape[1])
    listed = _check_listed(listed, num_blocks=shares.shape[2])
    time = np.concatenate([[0.0], np.cumsum(log_c)])

    log_shares = log_or_nan(shares)
    log_ratios = centred(log_shares, listed=listed)
    log_lambda = np.diff(log_shares, axis=-2)
    running = log_lambda / log_c[:, None]
    per_seed = {
        "paper": running.mean(axis=-2),
        "slope": slope(log_shares, time),
        "logratio": slope(log_ratios, time),
    }
    if magnitude is not None:
        per_seed["absolute"] = slope(log_or_nan(_check_magnitude(magnitude, shares.shape)), time)

    intervals = {name: t_interval(x, ci_level=ci_level) for name, x in per_seed.items()}
    running_interval = t_interval(running, ci_level=ci_level)
    eigenvalues = np.exp(log_lambda)
    window = _scaling_window(log_ratios, time)
    return Spectrum(
        sigma={name: x.mean for name, x in intervals.items()},
        ci_low={name: x.low for name, x in intervals.items()},
        ci_high={name: x.high for name, x in intervals.items()},
        sigma_per_seed=per_seed,
        num_seeds={name: x.num_seeds for name, x in intervals.items()},
        sem_seeds={name: x.sem for name, x in intervals.items()},
        sem_levels=t_interval(_level_sem(running)).mean,
        lambda_mean=t_interval(eigenvalues.mean(axis=-2)).mean,
        lambda_sem_rel=t_interval(_level_sem(eigenvalues) / eigenvalues.mean(axis=-2)).mean,
        eigenvalues=eigenvalues,
        running=running,
        running_ci_low=running_interval.low,
        running_ci_high=running_interval.high,
        curvature_p=mean_is_zero_p(curvature(log_ratios, time)),
        window=window,
        window_sigma=_window_sigma(running, window),
    )


def log_or_nan(x: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Natural logarithm, NaN where `x` is zero or NaN: what vanished has no exponent."""
    return np.log(np.where(x > 0, x, np.nan))


def centred(
    log_shares: Float[np.ndarray, "*axes block"], *, listed: int
) -> Float[np.ndarray, "*axes block"]:
    """Centred log-ratio ln M_i - mean_k ln M_k, the mean over the first `listed` blocks.

    References:
      Aitchison, J. R. Stat. Soc. B 44 (1982). Pure exponentials in W_i stay exactly linear in it.
    """
    return log_shares - log_shares[..., :listed].mean(axis=-1, keepdims=True)


def slope(
    y: Float[np.ndarray, "*axes level block"], time: Float[np.ndarray, " level"]
) -> Float[np.ndarray, "*axes block"]:
    """Least-squares slope over levels of `y` against `time`."""
    return np.einsum("l,...lb->...b", _leading_coefficient_weights(time, degree=1), y)


def curvature(
    y: Float[np.ndarray, "*axes level block"], time: Float[np.ndarray, " level"]
) -> Float[np.ndarray, "*axes block"]:
    """Quadratic coefficient over levels of `y` in `time`; NaN with fewer than three levels.

    What rounding of `y` alone could cause is returned as zero, so that an exact exponential has
    none.
    """
    if time.size < 3:
        return np.full(y.shape[:-2] + y.shape[-1:], np.nan)
    weights = _leading_coefficient_weights(time, degree=2)
    coefficient = np.einsum("l,...lb->...b", weights, y)
    rounding = 64 * np.finfo(float).eps * np.abs(weights).sum()
    return np.where(np.abs(coefficient) <= rounding, 0.0, coefficient)


def _leading_coefficient_weights(time: np.ndarray, *, degree: int) -> np.ndarray:
    """Weights whose inner product with y is the leading coefficient of the least-squares fit."""
    scaled = (time - time.mean()) / np.ptp(time)
    return np.linalg.pinv(np.vander(scaled, degree + 1))[0] / np.ptp(time) ** degree


def _scaling_window(log_ratios: np.ndarray, time: np.ndarray) -> np.ndarray:
    window = np.full((log_ratios.shape[-1], 2), -1)
    for length in range(time.size, MIN_WINDOW - 1, -1):
        for first in range(time.size - length + 1):
            span = slice(first, first + length)
            p = mean_is_zero_p(curvature(log_ratios[..., span, :], time[span]))
            is_new = (p >= REJECTION_LEVEL) & (window[:, 0] < 0)
            window[is_new] = first, first + length - 1
        if np.all(window >= 0):
            break
    return window


def _window_sigma(running: np.ndarray, window: np.ndarray) -> np.ndarray:
    sigma = np.full(window.shape[0], np.nan)
    for block, (first, last) in enumerate(window):
        if first >= 0:
            sigma[block] = t_interval(running[:, first:last, block].mean(axis=1)).mean
    return sigma


def _level_sem(x: np.ndarray) -> np.ndarray:
    """Standard error over levels; NaN with a single transition."""
    num = x.shape[-2]
    squares = np.sum((x - x.mean(axis=-2, keepdims=True)) ** 2, axis=-2)
    return np.sqrt(squares / (num - 1) / num) if num > 1 else np.full_like(squares, np.nan)


def _check_shares(shares: np.ndarray) -> np.ndarray:
    array = np.asarray(shares, float)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"shares must be [seed level block], none empty, got shape {array.shape}")
    if array.shape[1] < 2:
        raise ValueError(f"shares must have at least two levels, got {array.shape[1]}")
    if np.any((array < 0) | (array > 1 + 1e-6)):
        worst = array.ravel()[np.nanargmax(np.abs(array - 0.5))]
        raise ValueError(f"shares must be in [0, 1] or NaN, got {worst}")
    return array


def _check_scale_factor(scale_factor: float | np.ndarray, *, num_levels: int) -> np.ndarray:
    """Logarithm of the scale factor of each transition."""
    array = np.asarray(scale_factor, float)
    if array.shape not in ((), (num_levels - 1,)):
        raise ValueError(
            f"scale_factor must be a number or [level-1] = ({num_levels - 1},), got {array.shape}"
        )
    if not np.all((array > 1) & np.isfinite(array)):
        raise ValueError(f"scale_factor must be finite and above 1, got {scale_factor}")
    return np.broadcast_to(np.log(array), (num_levels - 1,))


def _check_listed(listed: int | None, *, num_blocks: int) -> int:
    if listed is None:
        return num_blocks
    if not 1 <= listed <= num_blocks:
        raise ValueError(f"listed must be between 1 and {num_blocks} blocks, got {listed}")
    return listed


def _check_magnitude(magnitude: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(magnitude, float)
    if array.shape != shape:
        raise ValueError(f"magnitude must be shaped as shares {shape}, got {array.shape}")
    is_bad = (array < 0) | np.isinf(array)
    if np.any(is_bad):
        raise ValueError(f"magnitude must be finite and >= 0, or NaN, got {array[is_bad][0]}")
    return array
