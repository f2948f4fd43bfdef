"""How the error of a network depends on density: the curve of Eq. 15 and its fit.

In: densities [level] and errors in percent, [level] or [seed level]. Out: an `ErrorLaw` in the
positive gauge, with a profile-likelihood interval of gamma and the verdict whether the data
identify it at all.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.optimize import brentq

from imp_rg.config import require
from imp_rg.rg.error_fit import GAMMA_BOUNDS, ErrorFit, log_curve, log_curve_gradient
from imp_rg.rg.error_noise import BinomialNoise, LogNoise

MIN_DENSITIES = 5
"""The law has four parameters."""

MIN_IN_WINDOW = 4
"""Fewest densities on the power law proper, between 3 p and q / 3."""


@dataclass(frozen=True, kw_only=True)
class ErrorLaw:
    """err(d) = e_np [(d^2 + q^2) / (d^2 + p^2)]^(gamma / 2), with e_up = e_np (q / p)^gamma.

    (gamma, p, q) and (-gamma, q, p) are one curve: the sign of gamma is a gauge. A fit gives the
    positive one, gamma > 0 and q > p.

    Attributes:
      gamma: Exponent; the error grows as d^-gamma between q and p.
      p: Density below which the error saturates at `e_up` (positive gauge).
      q: Density above which the error is `e_np` (positive gauge).
      e_np: Error unpruned, percent.
      e_up: Error at vanishing density, percent; an extrapolation, not limited to 100.
      gamma_ci: Lower and upper end of the profile interval; an end at `GAMMA_BOUNDS` is none.
      ci_level: Coverage of the interval.
      num_in_window: Densities strictly between 3 p and q / 3.
      dispersion: Variance of the noise: of the logarithm of an error, or relative to the binomial
        one where the number of test examples is known.
      seed_dispersion: Variance of gamma between seeds over what the noise explains; NaN with one
        seed.
      reasons: Why gamma is not identified, in words; empty if it is.
    """

    gamma: float
    p: float
    q: float
    e_np: float
    e_up: float
    gamma_ci: tuple[float, float]
    ci_level: float
    num_in_window: int
    dispersion: float
    seed_dispersion: float
    reasons: tuple[str, ...]

    @property
    def identified(self) -> bool:
        """Whether the data determine gamma."""
        return not self.reasons

    def error_at(self, density: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
        """Error in percent at each density; the same in both gauges."""
        squared = np.asarray(density, float) ** 2
        ratio = (squared + self.q**2) / (squared + self.p**2)
        return self.e_np * ratio ** (self.gamma / 2)

    def in_paper_gauge(self) -> "ErrorLaw":
        """The same curve with negative gamma, as the paper's Table 7 prints it.

        Its `p` is the p of Eq. 15; its `q` is p (e_up / e_np)^(1 / gamma).

        References:
          Redman et al., arXiv:2110.03210, Eq. 15 and Table 7.
        """
        if self.gamma < 0:
            return self
        low, high = self.gamma_ci
        return replace(self, gamma=-self.gamma, p=self.q, q=self.p, gamma_ci=(-high, -low))


def fit_error_law(
    density: Float[np.ndarray, " level"],
    error: Float[np.ndarray, "*seed level"],
    *,
    num_test: int | None = None,
    ci_level: float = 0.95,
) -> ErrorLaw:
    """Fits the error law, and says whether the data identify gamma.

    Free are ln gamma, ln p, ln q and ln e_np in the positive gauge, from several starts. With
    `num_test` the noise is binomial and zero errors are legal; without, it is least squares in the
    logarithm of the error.

    The interval of gamma holds all values whose best curve is not significantly worse than the
    best of all. With one seed the residuals say what is significant (binomial noise counts at
    least as such). With more, seeds are the replicates: the influence of each seed on ln gamma
    gives the variance between them, and Student's quantile for S - 1 degrees of freedom scales the
    profile; seeds that agree by chance leave one standard error of the noise. A shift of a whole
    curve moves e_np and says nothing about gamma. Simulated coverage of the 95 % interval: one
    seed 95 %; three seeds that agree 98 %, whose gammas scatter by 3 % and 10 %, 96 % and 93 %.

    Args:
      density: Kept fraction at each level, in (0, 1].
      error: 100 - accuracy, in percent; [level], or [seed level].
      num_test: Number of test examples behind each error.
      ci_level: Coverage of the interval, in (0, 1).

    Returns:
      An `ErrorLaw`; `not identified` if fewer than `MIN_IN_WINDOW` densities lie in (3 p, q / 3)
      or the interval touches a bound.

    Raises:
      ValueError: If shapes do not fit, there are fewer than `MIN_DENSITIES` densities, a value is
        out of range, or all errors are equal.

    References:
      Redman et al., arXiv:2110.03210, Eq. 15, after Rosenfeld et al., arXiv:2006.10621. The paper
      bounds e_np tightly and prints the negative gauge; gauge, noise and interval are house
      definitions.
    """
    density, errors = check_errors(density, error, num_test=num_test)
    require(0 < ci_level < 1, "ci_level", "must be in (0, 1)", ci_level)
    noise = LogNoise(errors) if num_test is None else BinomialNoise(errors, num_test)
    fit = ErrorFit(density, noise)
    scatter = _scatter(fit, errors.shape, ci_level)
    (low, is_low_bound), (high, is_high_bound) = (
        _interval_end(fit, scatter, direction) for direction in (-1, 1)
    )
    gamma, p, ratio, e_np = map(float, np.exp(fit.best))
    q = p * ratio
    num_in_window = int(np.sum((3 * p < np.unique(density)) & (np.unique(density) < q / 3)))
    return ErrorLaw(
        gamma=gamma,
        p=p,
        q=q,
        e_np=e_np,
        e_up=e_np * ratio**gamma,
        gamma_ci=(low, high),
        ci_level=ci_level,
        num_in_window=num_in_window,
        dispersion=scatter.dispersion,
        seed_dispersion=scatter.between_seeds,
        reasons=_reasons(num_in_window, is_low_bound, is_high_bound),
    )


def check_errors(
    density: np.ndarray, error: np.ndarray, *, num_test: int | None = None
) -> tuple[Float[np.ndarray, " level"], Float[np.ndarray, "seed level"]]:
    """Densities, and errors with a seed axis; `ValueError` if they are no curve."""
    density, errors = np.asarray(density, float), np.atleast_2d(np.asarray(error, float))
    if density.ndim != 1 or errors.ndim != 2 or errors.shape[1] != density.size or not errors.size:
        raise ValueError(
            "error: must be [level] or [seed level] and density [level], "
            f"got shapes {np.shape(error)} and {density.shape}"
        )
    num = np.unique(density).size
    require(num >= MIN_DENSITIES, "density", f"must hold at least {MIN_DENSITIES} values", num)
    require_all((density > 0) & (density <= 1), "density", "must lie in (0, 1]", density)
    require_all((errors >= 0) & (errors <= 100), "error", "must lie in [0, 100] percent", errors)
    if num_test is None:
        rule = "must be positive without num_test: zero errors need the number of test examples"
        require_all(errors > 0, "error", rule, errors)
    else:
        require(num_test >= 1, "num_test", "must be at least 1", num_test)
    require(np.ptp(errors) > 0, "error", "must not be the same everywhere", float(errors.flat[0]))
    return density, errors


def require_all(is_met: np.ndarray, name: str, rule: str, values: np.ndarray) -> None:
    """Raises `ValueError` with the first value that breaks the rule; NaN breaks every rule."""
    if not is_met.all():
        require(False, name, rule, float(values[~is_met][0]))


class _Scatter(NamedTuple):
    """What scatter the data show.

    Attributes:
      dispersion: Variance of the noise.
      between_seeds: Variance of ln gamma between seeds over that of the noise.
      standard_error: Of ln gamma.
      threshold: How much larger than its minimum the objective may be within the interval.
    """

    dispersion: float
    between_seeds: float
    standard_error: float
    threshold: float


def _scatter(fit: ErrorFit, shape: tuple[int, ...], ci_level: float) -> _Scatter:
    num_seeds, num_levels = shape
    log_error = log_curve(fit.best, fit.density)
    gradient = log_curve_gradient(fit.best, fit.density)
    score, weight = fit.noise.score(log_error), fit.noise.weight(log_error)
    dof = num_seeds * num_levels - fit.best.size
    dispersion = float(np.sum(score**2 / weight)) / dof
    quantile = 0.5 + ci_level / 2
    if dispersion < fit.noise.least_dispersion:
        dispersion, width = fit.noise.least_dispersion, stats.norm.ppf(quantile)
    else:
        width = stats.t.ppf(quantile, dof)
    inverse = np.linalg.pinv(num_seeds * (gradient * weight[:, None]).T @ gradient)
    variance, between = dispersion * inverse[0, 0], np.nan
    if num_seeds > 1:
        influence = score @ gradient @ inverse[0]
        between = float(num_seeds * influence.var(ddof=1) / variance)
        # Few seeds may agree by chance, but not to better than the noise lets them.
        width = max(stats.t.ppf(quantile, num_seeds - 1) * np.sqrt(between), 1.0)
    return _Scatter(dispersion, between, float(np.sqrt(variance)), float(dispersion * width**2))


def _interval_end(fit: ErrorFit, scatter: _Scatter, direction: int) -> tuple[float, bool]:
    """One end of the profile interval of gamma, and whether it is a bound."""
    bound = (fit.high if direction > 0 else fit.low)[0]
    start, best = fit.best, fit.objective

    def excess(log_gamma: float) -> float:
        theta = fit.minimise(start, log_gamma=log_gamma)
        return fit.objective_at(theta) - best - scatter.threshold

    step = np.sqrt(scatter.threshold / scatter.dispersion) * np.clip(
        scatter.standard_error, 0.01, 0.5
    )
    while True:
        outer = start[0] + direction * step
        if direction * (outer - bound) >= 0:
            outer = bound
        if excess(outer) > 0:
            break
        if outer == bound:
            return float(np.exp(bound)), True
        start, step = fit.minimise(start, log_gamma=outer), 1.5 * step
    root: float = brentq(excess, start[0], outer, xtol=1e-4)  # pyright: ignore[reportAssignmentType]
    return float(np.exp(root)), False


def _reasons(num_in_window: int, is_low_bound: bool, is_high_bound: bool) -> tuple[str, ...]:
    reasons = []
    if num_in_window < MIN_IN_WINDOW:
        reasons.append(
            f"{num_in_window} densities lie on the power law (between 3 p and q / 3), "
            f"{MIN_IN_WINDOW} are needed"
        )
    low, high = GAMMA_BOUNDS
    if is_low_bound and is_high_bound:
        reasons.append(f"every gamma from {low:g} to {high:g} fits about as well")
    elif is_low_bound:
        reasons.append(f"the interval of gamma has no lower end above {low:g}")
    elif is_high_bound:
        reasons.append(f"the interval of gamma has no upper end below {high:g}")
    return tuple(reasons)
