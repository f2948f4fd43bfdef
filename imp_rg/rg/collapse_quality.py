"""How well curves of several sizes fall onto one under given exponents.

In: points of all sizes, and x_c, nu, zeta. Out: Houdayer and Hartmann's S, for `imp_rg.rg.scaling`
to minimise.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from imp_rg.config import require
from imp_rg.rg.error_law import require_all

MIN_OVERLAP = 0.5
"""Fewest points, as a part of all, that curves of other sizes must enclose. Without a least, a
collapse that pulls the sizes apart until a few points meet would be the best of all."""


class ScalingData(NamedTuple):
    """Points of all sizes, those of one size together and in order of x.

    Attributes:
      x: Control parameter.
      y: Measured quantity.
      y_err: Its standard error.
      log_size: ln L - <ln L>: sizes in units of their geometric mean.
      starts: Where each size begins, and where the last one ends.
    """

    x: Float[np.ndarray, " point"]
    y: Float[np.ndarray, " point"]
    y_err: Float[np.ndarray, " point"]
    log_size: Float[np.ndarray, " point"]
    starts: list[int]


def sorted_points(
    x: Float[np.ndarray, " point"],
    y: Float[np.ndarray, " point"],
    y_err: Float[np.ndarray, " point"],
    size: Float[np.ndarray, " point"],
) -> tuple[ScalingData, Int[np.ndarray, " point"]]:
    """Checks points and sorts them.

    Args:
      x: Control parameter of every point.
      y: Measured quantity.
      y_err: Standard error of y, positive.
      size: System size of every point, at least two different ones of at least two points each.

    Returns:
      The points in order of size and x, and that order.

    Raises:
      ValueError: If shapes do not fit or a value is out of range.

    References:
      House definition.
    """
    arrays = [np.asarray(values, float) for values in (x, y, y_err, size)]
    shapes = [values.shape for values in arrays]
    rule = "must be [point] of one length, as x, y and y_err"
    require(len(set(shapes)) == 1 and arrays[0].ndim == 1, "size", rule, shapes)
    for name, values in zip(("x", "y", "y_err", "size"), arrays, strict=True):
        is_good = np.isfinite(values) & ((values > 0) | (name in ("x", "y")))
        rule = "must be finite" if name in ("x", "y") else "must be positive and finite"
        require_all(is_good, name, rule, values)
    x, y, y_err, size = arrays
    sizes, counts = np.unique(size, return_counts=True)
    require(sizes.size >= 2, "size", "must hold at least 2 system sizes", sizes.tolist())
    require(counts.min() >= 2, "size", "must have at least 2 points each", counts.tolist())
    order = np.lexsort((x, size))
    log_size = np.log(size[order])
    starts = [0, *np.cumsum(counts).tolist()]
    data = ScalingData(x[order], y[order], y_err[order], log_size - log_size.mean(), starts)
    return data, order


def quality(data: ScalingData, x_c: float, nu: float, zeta: float) -> tuple[float, int]:
    """S of one choice of parameters, and how many points it is the mean over.

    A point counts if the curve of at least one other size encloses it. The master curve there is
    the weighted least-squares line through the two neighbours from every such size.

    Args:
      data: Sorted points.
      x_c: Critical point.
      nu: Exponent of the correlation length.
      zeta: Exponent of y.

    Returns:
      S, infinite if fewer than `MIN_OVERLAP` of the points count; their number.

    References:
      Houdayer and Hartmann, Phys. Rev. B 70, 014418 (2004), App.
    """
    x = (data.x - x_c) * np.exp(data.log_size / nu)
    scale = np.exp(-zeta / nu * data.log_size)
    y, y_err = data.y * scale, data.y_err * scale
    spans = list(zip(data.starts, data.starts[1:], strict=False))
    right = np.array(
        [first + np.searchsorted(x[first + 1 : last - 1], x) + 1 for first, last in spans]
    )
    neighbours = np.stack([right - 1, right])
    distance = x[neighbours] - x
    is_enclosed = (distance[0] <= 0) & (distance[1] >= 0)
    for of_size, (first, last) in zip(is_enclosed, spans, strict=True):
        of_size[first:last] = False
    weight = is_enclosed / y_err[neighbours] ** 2
    far, high = weight * distance, weight * y[neighbours]
    terms = np.stack([weight, far, far * distance, high, high * distance])
    s, sx, sxx, sy, sxy = terms.sum(axis=(1, 2))
    determinant = s * sxx - sx**2
    counts = determinant > 0
    num_points = int(np.count_nonzero(counts))
    if num_points < MIN_OVERLAP * x.size:
        return np.inf, num_points
    s, sx, sxx, sy, sxy, determinant = (v[counts] for v in (s, sx, sxx, sy, sxy, determinant))
    curve, variance = (sxx * sy - sx * sxy) / determinant, sxx / determinant
    squares = (y[counts] - curve) ** 2 / (y_err[counts] ** 2 + variance)
    return float(np.mean(squares)), num_points
