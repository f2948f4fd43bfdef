"""Finite-size scaling: critical point and exponents from the collapse of curves of several sizes.

In: a quantity y with its errors at points x for several system sizes L, from anywhere. Out: a
`Collapse`, the x_c, nu and zeta for which y L^(-zeta/nu) is one function of (x - x_c) L^(1/nu).
NumPy and SciPy only:

    found = collapse(x, y, y_err, size, start=(0.6, 1.0, 0.0), hold=("zeta",))
    print(found.nu, found.nu_error, found.quality)
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, minimize

from imp_rg.config import require
from imp_rg.rg.collapse_quality import MIN_OVERLAP, ScalingData, quality, sorted_points

PARAMETERS = ("x_c", "nu", "zeta")

NUM_RESAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """y L^(-zeta/nu) = f((x - x_c) L^(1/nu)).

    Each parameter has two errors. The bootstrap's is a standard error; that of `quality` (S -> S+1)
    says how far the parameter can go, the others following, before the collapse is worse by one. It
    is the custom of the field, and the only one without samples, but no standard error: for n
    independent points it is too large by about sqrt(n). Errors are 0 for what was held and NaN
    where they are not known.

    Attributes:
      x_c: Critical point.
      nu: Exponent of the correlation length.
      zeta: Exponent of y, which scales as L^(zeta/nu) at x_c.
      quality: S, mean squared distance to the master curve in units of the errors; about 1 if the
        collapse holds and the points are independent.
      x_c_error: Of x_c: by the bootstrap where there are samples, else from S -> S+1.
      nu_error: Standard error of nu.
      zeta_error: Standard error of zeta.
      quality_error: S sqrt(2 / num_points), its standard deviation if the points are independent.
      s_plus_one: How far S -> S+1 lets x_c, nu and zeta go to either side, [parameter 2].
      resampled: x_c, nu and zeta of every bootstrap sample; none without samples.
      num_points: Points that curves of other sizes enclose, which S is the mean over.
    """

    x_c: float
    nu: float
    zeta: float
    quality: float
    x_c_error: float
    nu_error: float
    zeta_error: float
    quality_error: float
    s_plus_one: Float[np.ndarray, "parameter 2"]
    resampled: Float[np.ndarray, "resample parameter"]
    num_points: int

    def scaled(
        self,
        x: Float[np.ndarray, "*axes"],
        y: Float[np.ndarray, "*axes"],
        size: Float[np.ndarray, "*axes"],
    ) -> tuple[Float[np.ndarray, "*axes"], Float[np.ndarray, "*axes"]]:
        """Coordinates in which the curves fall together; errors of y scale as y does."""
        x, y, size = (np.asarray(values, float) for values in (x, y, size))
        return (x - self.x_c) * size ** (1 / self.nu), y * size ** (-self.zeta / self.nu)


def collapse(
    x: Float[np.ndarray, " point"],
    y: Float[np.ndarray, " point"],
    y_err: Float[np.ndarray, " point"],
    size: Float[np.ndarray, " point"],
    *,
    start: Sequence[float],
    hold: Collection[str] = (),
    samples: Float[np.ndarray, "sample point"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Collapse:
    """Finds the parameters under which the curves of all sizes fall onto one.

    S is minimised by Nelder and Mead's simplex, begun again where it ends, over x_c, ln nu and
    zeta. The curve through the other sizes is piecewise linear: choose points dense enough that
    the curvature between two of them stays below the error. Nothing corrects for sizes that are too
    small to scale: leave the smallest out and see.

    Args:
      x: Control parameter of every point; sizes need not share their values.
      y: Measured quantity.
      y_err: Standard error of y, positive.
      size: System size L of every point.
      start: Guess of (x_c, nu, zeta).
      hold: Names of parameters that stay at their guess, such as ("zeta",) for a y that has no
        dimension.
      samples: Independent measurements of every y, for the bootstrap, which draws them with
        replacement, anew for every size; points of one size keep together, so they may be
        correlated. Where y is no mean of samples, their mean need not be y.
      num_resamples: Of the bootstrap.
      seed: Of the bootstrap.

    Returns:
      A `Collapse`.

    Raises:
      ValueError: If shapes do not fit, a value is out of range, there are fewer than two sizes, or
        the curves do not overlap at the start.

    References:
      Houdayer and Hartmann, Phys. Rev. B 70, 014418 (2004), App. (S); Melchert, arXiv:0910.5403
      (the program autoScale). Profile of S -> S+1, overlap rule and bootstrap: house definitions.
    """
    data, order = sorted_points(x, y, y_err, size)
    guess = _check_start(start)
    free = _free_parameters(hold)
    at_start = quality(data, *guess)
    require(np.isfinite(at_start[0]), "start",
            f"must make curves of other sizes enclose {MIN_OVERLAP:.0%} of the points",
            tuple(map(float, guess)))  # fmt: skip
    best = _minimise(data, guess, free)
    value, num_points = quality(data, *best)
    sides = _s_plus_one(data, best, free, value)
    errors = sides.mean(axis=1)
    resampled = np.empty((0, len(PARAMETERS)))
    if samples is not None:
        samples = _check_samples(samples, num_points=data.x.size)[:, order]
        rng = np.random.default_rng(seed)
        draws = [_resample(rng, data, samples) for _ in range(num_resamples)]
        resampled = np.array([_minimise(draw, best, free, restarts=0) for draw in draws])
        errors = resampled.std(axis=0, ddof=1)
    return Collapse(
        **dict(zip(PARAMETERS, map(float, best), strict=True)),
        **{f"{name}_error": float(e) for name, e in zip(PARAMETERS, errors, strict=True)},
        quality=value,
        quality_error=float(value * np.sqrt(2 / num_points)),
        s_plus_one=sides,
        resampled=resampled,
        num_points=num_points,
    )


def _minimise(
    data: ScalingData, start: np.ndarray, free: np.ndarray, *, restarts: int = 2
) -> np.ndarray:
    """Best parameters near `start`; those not free stay."""
    if not free.any():
        return start
    best = start
    for _ in range(1 + restarts):
        best = _simplex(data, best, free)
    return best


def _simplex(data: ScalingData, start: np.ndarray, free: np.ndarray) -> np.ndarray:
    """One run of the simplex, in units of steps that change the collapse visibly."""
    steps = np.array([0.05 * np.ptp(data.x), 0.1, 0.1])[free]

    def unfold(reduced: np.ndarray) -> np.ndarray:
        """From steps to parameters: a step of nu is one of ln nu."""
        moves = np.zeros(len(PARAMETERS))
        moves[free] = steps * reduced
        return np.array([start[0] + moves[0], start[1] * np.exp(moves[1]), start[2] + moves[2]])

    corners = np.vstack([np.zeros(len(steps)), np.eye(len(steps))])
    found = minimize(
        lambda reduced: quality(data, *unfold(reduced))[0],
        corners[0],
        method="Nelder-Mead",
        options={"initial_simplex": corners, "xatol": 1e-4, "fatol": 1e-7, "maxiter": 400},
    )
    return unfold(found.x)


def _s_plus_one(
    data: ScalingData, best: np.ndarray, free: np.ndarray, value: float
) -> Float[np.ndarray, "parameter 2"]:
    """Steps down and up of each parameter that raise S by one, the others following."""
    sides = np.zeros((len(PARAMETERS), 2))
    for i in np.flatnonzero(free):
        others = free.copy()
        others[i] = False

        def excess(position: float, i=i, others=others) -> float:
            held = best.copy()
            held[i] = position
            moved = _minimise(data, held, others, restarts=0)
            return min(quality(data, *moved)[0], 1e9) - value - 1

        unit = 0.02 * (np.ptp(data.x), best[1], 1.0)[i]
        limits = ((-np.inf, np.inf), (1e-3 * best[1], 1e3 * best[1]), (-np.inf, np.inf))[i]
        sides[i] = [_side(excess, best[i], s * unit, limits) for s in (-1, 1)]
    return sides


def _side(
    excess: Callable[[float], float], best: float, step: float, limits: tuple[float, float]
) -> float:
    """Distance from `best` to where `excess` turns positive; NaN if it never does."""
    inner = best
    for _ in range(20):
        outer = float(np.clip(best + step, *limits))
        if excess(outer) > 0:
            root: float = brentq(excess, inner, outer, xtol=1e-3 * abs(step))  # pyright: ignore[reportAssignmentType]
            return abs(root - best)
        if outer in limits:
            break
        inner, step = outer, 2 * step
    return np.nan


def _resample(rng: np.random.Generator, data: ScalingData, samples: np.ndarray) -> ScalingData:
    """Data with every y moved as the mean of its samples moves when they are drawn anew."""
    y = data.y.copy()
    for first, last in zip(data.starts, data.starts[1:], strict=False):
        of_size = samples[:, first:last]
        drawn = rng.integers(len(samples), size=len(samples))
        weights = np.bincount(drawn, minlength=len(samples)) - 1.0
        y[first:last] += weights @ of_size / len(samples)
    return data._replace(y=y)


def _check_start(start: Sequence[float]) -> np.ndarray:
    guess = np.asarray(start, float)
    is_good = guess.shape == (len(PARAMETERS),) and np.isfinite(guess).all() and guess[1] > 0
    require(bool(is_good), "start", "must be finite (x_c, nu, zeta) with nu > 0", start)
    return guess


def _free_parameters(hold: Collection[str]) -> np.ndarray:
    strange = sorted(set(hold) - set(PARAMETERS))
    require(not strange, "hold", f"must name some of {', '.join(PARAMETERS)}", tuple(hold))
    return np.array([name not in hold for name in PARAMETERS])


def _check_samples(samples: np.ndarray, *, num_points: int) -> np.ndarray:
    samples = np.asarray(samples, float)
    is_good = samples.ndim == 2 and samples.shape[1] == num_points and len(samples) >= 2
    rule = f"must be [sample point] of at least 2 samples and {num_points} points"
    require(is_good, "samples", rule, samples.shape)
    require(bool(np.isfinite(samples).all()), "samples", "must be finite", "NaN or infinity")
    return samples
