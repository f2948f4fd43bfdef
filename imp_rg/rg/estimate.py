"""A number with its interval: on which side of zero, of a null or of another it lies, and its text.

In: values over seeds, or ends that something else computed. Out: an `Estimate`, from which every
verdict, column and cell is made.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from imp_rg.rg.stats import t_interval

MISSING = "–"
"""What stands where there is no number."""


class Estimate(NamedTuple):
    """A value with the ends of its interval, or arrays of them.

    Attributes:
      value: The number; NaN if there is none.
      low: Lower end; NaN without an interval.
      high: Upper end; NaN without an interval.
    """

    value: Any
    low: Any = np.nan
    high: Any = np.nan

    @classmethod
    def of(cls, row: Mapping[str, Any], name: str) -> "Estimate":
        """From the columns NAME, NAME_low and NAME_high of a row; the ends may be absent."""
        return cls(row[name], row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan))

    @classmethod
    def at(cls, row: Any, name: str = "value") -> "Estimate":
        """From the columns NAME, low and high of a row, or of a whole frame."""
        return cls(row[name], row["low"], row["high"])

    def columns(self, name: str) -> dict[str, Any]:
        """The columns NAME, NAME_low and NAME_high."""
        return {name: _plain(self.value), f"{name}_low": _plain(self.low),
                f"{name}_high": _plain(self.high)}  # fmt: skip

    def excludes(self, point: float = 0.0) -> Any:
        """Whether the interval leaves a point out; False without an interval."""
        return (np.asarray(self.low) > point) | (np.asarray(self.high) < point)

    def within(self, margin: float) -> Any:
        """Whether the interval lies in (-margin, margin): equal for all that matters."""
        return (np.asarray(self.low) > -margin) & (np.asarray(self.high) < margin)

    def side(self, point: float = 0.0) -> str:
        """Where a single interval lies: above or below a point, as (it holds it), or unknown."""
        if np.isnan(self.low) or np.isnan(self.high):
            return "unknown"
        return "above" if self.low > point else "below" if self.high < point else "as"

    def text(self, digits: int = 3) -> str:
        """Signed, with the interval if there is one: +0.269 [+0.236, +0.302]."""
        if np.isnan(self.value) or np.isnan(self.low):
            return number_text(self.value, digits)
        return f"{number_text(self.value, digits)} {self.ends(digits)}"

    def ends(self, digits: int = 3) -> str:
        """The interval alone; a dash without one."""
        if np.isnan(self.low):
            return MISSING
        return f"[{number_text(self.low, digits)}, {number_text(self.high, digits)}]"


def summarise(values: Float[np.ndarray, "seed *axes"], *, ci_level: float = 0.95) -> Estimate:
    """Mean over seeds with Student's interval.

    Args:
      values: One value per seed; NaN where a seed has none.
      ci_level: Coverage in (0, 1).

    Returns:
      An `Estimate` with fields [*axes]; no interval with fewer than two seeds.

    Raises:
      ValueError: As `imp_rg.rg.stats.t_interval`.
    """
    return Estimate(*t_interval(values, ci_level=ci_level)[:3])


def contrast(
    a: Float[np.ndarray, "seed_a *axes"],
    b: Float[np.ndarray, "seed_b *axes"],
    *,
    is_paired: bool,
    ci_level: float = 0.95,
) -> Estimate:
    """Mean of a minus mean of b over seeds, with its interval.

    Args:
      a: One value per seed.
      b: One value per seed of what it is compared with.
      is_paired: Whether equal positions are the same seed: the interval is then Student's of the
        differences, else Welch's, and NaN where a group has fewer than two values.
      ci_level: Coverage in (0, 1).

    Returns:
      An `Estimate` with fields [*axes].

    Raises:
      ValueError: As `imp_rg.rg.stats.t_interval`, or if paired shapes differ.

    References:
      Student, Biometrika 6 (1908); Welch, Biometrika 34 (1947).
    """
    if is_paired:
        return summarise(np.asarray(a, float) - np.asarray(b, float), ci_level=ci_level)
    return _welch(a, b, ci_level)


def _welch(a: np.ndarray, b: np.ndarray, ci_level: float) -> Estimate:
    """Difference of the means of two independent groups; NaN leaves a seed out."""
    of_a, of_b = t_interval(a, ci_level=ci_level), t_interval(b, ci_level=ci_level)
    square_a, square_b = of_a.sem**2, of_b.sem**2
    sem = np.sqrt(square_a + square_b)
    weighted = square_a**2 / np.maximum(of_a.num_seeds - 1, 1)
    weighted = weighted + square_b**2 / np.maximum(of_b.num_seeds - 1, 1)
    # Without any scatter the interval is a point, whatever the degrees of freedom.
    freedom = np.divide(sem**4, weighted, out=np.ones_like(sem), where=weighted > 0)
    half_width = stdtrit(freedom, 0.5 + ci_level / 2) * sem  # t quantile; stats.t is slow
    mean = of_a.mean - of_b.mean
    return Estimate(mean, mean - half_width, mean + half_width)


def number_text(value: float, digits: int = 3) -> str:
    """Signed, with so many decimals; a dash for NaN."""
    return MISSING if np.isnan(value) else f"{value:+.{digits}f}"


def decimal_text(value: float, digits: int = 3) -> str:
    """Without a plus sign, with so many decimals; a dash for NaN."""
    return MISSING if np.isnan(value) else f"{value:.{digits}f}"


def _plain(value: Any) -> Any:
    """A Python float of a scalar array, which a table holds as a number."""
    return float(value) if np.ndim(value) == 0 else value
