"""Critical exponents of the error: the window form of Eq. 1, and how well a law predicts.

In: densities [level] and errors in percent, [level] or [seed level]. Out: a `PowerLaw`, or the
prediction of densities that the fit has not seen. The full law, Eq. 15, is in `error_law`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from imp_rg.config import require
from imp_rg.rg.error_law import check_errors, fit_error_law
from imp_rg.rg.stats import t_interval

MIN_ON_POWER_LAW = 3
"""Fewest densities of a power law: two parameters and a residual."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """err(d) = amplitude (d_C - d)^-gamma inside the window (d_L, d_C).

    The error grows as d falls away from d_C, so gamma is negative, as in the paper's Table 7.

    Attributes:
      gamma: Exponent, the mean over seeds.
      amplitude: Error in percent at d_C - d = 1.
      window: (d_L, d_C).
      gamma_ci: Its ends: over seeds, or over the residuals of a single seed.
      num_densities: How many lie in the window.
    """

    gamma: float
    amplitude: float
    window: tuple[float, float]
    gamma_ci: tuple[float, float]
    num_densities: int

    def error_at(self, density: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
        """Error in percent; NaN at d_C and above."""
        distance = self.window[1] - np.asarray(density, float)
        return self.amplitude * np.where(distance > 0, distance, np.nan) ** -self.gamma


def fit_power_law(
    density: Float[np.ndarray, " level"],
    error: Float[np.ndarray, "*seed level"],
    *,
    window: tuple[float, float],
    ci_level: float = 0.95,
) -> PowerLaw:
    """Least-squares line of ln err against ln(d_C - d) on the densities inside the window.

    Args:
      density: Kept fraction at each level, in (0, 1].
      error: In percent; [level], or [seed level].
      window: (d_L, d_C); the ends do not count. The choice is the user's: gamma depends on it.
      ci_level: Coverage of the interval, in (0, 1).

    Returns:
      A `PowerLaw`. Its interval is Student's over the slopes of the seeds; for one seed, that of
      the regression.

    Raises:
      ValueError: As `fit_error_law`; if the window is no interval, or fewer than
        `MIN_ON_POWER_LAW` densities lie in it.

    References:
      Redman et al., arXiv:2110.03210, Eq. 1. It is another law than Eq. 15, which is a power of d
      itself: their exponents do not agree.
    """
    density, errors = check_errors(density, error)
    lowest, critical = window
    require(0 <= lowest < critical, "window", "must be (d_L, d_C) with 0 <= d_L < d_C", window)
    is_inside = (lowest < density) & (density < critical)
    num = int(is_inside.sum())
    require(num >= MIN_ON_POWER_LAW, "window", f"must hold {MIN_ON_POWER_LAW} densities", num)
    x, y = np.log(critical - density[is_inside]), np.log(errors[:, is_inside])
    centred = x - x.mean()
    slopes = y @ centred / (centred @ centred)
    slope, intercept = slopes.mean(), y.mean() - slopes.mean() * x.mean()
    if len(slopes) > 1:
        interval = t_interval(slopes, ci_level=ci_level)
        low, high = float(interval.low), float(interval.high)
    else:
        residuals = y[0] - intercept - slope * x
        standard_error = np.sqrt(residuals @ residuals / (num - 2) / (centred @ centred))
        half = stats.t.ppf(0.5 + ci_level / 2, num - 2) * standard_error
        low, high = slope - half, slope + half
    return PowerLaw(
        gamma=float(-slope),
        amplitude=float(np.exp(intercept)),
        window=window,
        gamma_ci=(float(-high), float(-low)),
        num_densities=num,
    )


class HeldOut(NamedTuple):
    """Prediction of densities the fit has not seen.

    Attributes:
      predicted: Error in percent at each of them.
      measured: Mean over seeds.
      rms: Root mean square difference in percentage points.
    """

    predicted: Float[np.ndarray, " held_out"]
    measured: Float[np.ndarray, " held_out"]
    rms: float


def predict_held_out(
    density: Float[np.ndarray, " level"],
    error: Float[np.ndarray, "*seed level"],
    *,
    is_held_out: Bool[np.ndarray, " level"],
    num_test: int | None = None,
) -> HeldOut:
    """Fits the error law to some densities and predicts the others.

    Args:
      density: Kept fraction at each level, in (0, 1].
      error: In percent; [level], or [seed level].
      is_held_out: Which densities to predict.
      num_test: Number of test examples behind each error.

    Returns:
      A `HeldOut`.

    Raises:
      ValueError: As `fit_error_law`, for the densities left; or if none is held out.

    References:
      House definition.
    """
    density, errors = check_errors(density, error, num_test=num_test)
    is_held_out = np.asarray(is_held_out, bool)
    if is_held_out.shape != density.shape or not is_held_out.any():
        raise ValueError(
            f"is_held_out: must be [level] and mark a density, got shape {is_held_out.shape} "
            f"with {is_held_out.sum()} marked"
        )
    law = fit_error_law(density[~is_held_out], errors[:, ~is_held_out], num_test=num_test)
    predicted = law.error_at(density[is_held_out])
    measured = errors[:, is_held_out].mean(axis=0)
    return HeldOut(predicted, measured, float(np.sqrt(np.mean((predicted - measured) ** 2))))
