"""Monte Carlo renormalization group: exponents from operators measured on blocked configurations.

In: sums of operators at two neighbouring blocking levels, or moments of the magnetisation, gathered
in bins. Out: eigenvalues of Swendsen's linearised RG matrix, crossings of Binder's cumulant, with
jack-knife errors. Knows no model: any lattice whose operators were summed will do.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from imp_rg.config import require


class Jackknifed(NamedTuple):
    """A number or array with its standard error.

    Attributes:
      value: The statistic of all bins together.
      error: Jack-knife standard error over bins, of the same shape.
    """

    value: np.ndarray
    error: np.ndarray


class PairMoments(NamedTuple):
    """First and second moments of the operators of two neighbouring blocking levels, per bin.

    Attributes:
      fine: <S_a> before the blocking.
      coarse: <S_a> after it.
      coarse_coarse: <S_a S_b>, both after it.
      coarse_fine: <S_a S_b>, a after and b before.
    """

    fine: Float[np.ndarray, "bin operator"]
    coarse: Float[np.ndarray, "bin operator"]
    coarse_coarse: Float[np.ndarray, "bin operator operator"]
    coarse_fine: Float[np.ndarray, "bin operator operator"]


def pair_moments(
    fine: Num[np.ndarray, "bin sample operator"], coarse: Num[np.ndarray, "bin sample operator"]
) -> PairMoments:
    """Moments of every bin from operators measured on the same configurations.

    Args:
      fine: Sums of operators before the blocking.
      coarse: Operators after the blocking.

    Returns:
      A `PairMoments`; those of several batches are joined along `bin`.

    Raises:
      ValueError: If the shapes differ.

    References:
      House definition.
    """
    fine, coarse = np.asarray(fine, float), np.asarray(coarse, float)
    require(fine.shape == coarse.shape and fine.ndim == 3, "coarse",
            f"must be [bin sample operator] shaped as fine {fine.shape}", coarse.shape)  # fmt: skip
    num_samples = fine.shape[1]
    return PairMoments(
        fine=fine.mean(axis=1),
        coarse=coarse.mean(axis=1),
        coarse_coarse=coarse.swapaxes(1, 2) @ coarse / num_samples,
        coarse_fine=coarse.swapaxes(1, 2) @ fine / num_samples,
    )


def rg_matrix(
    moments: PairMoments, *, num_operators: int, is_odd: bool
) -> Float[np.ndarray, "operator operator"]:
    """Swendsen's linearised RG matrix T_ab = dK_a(coarse) / dK_b(fine) of all bins together.

    From d<S_c(coarse)>/dK_b(fine) = sum_a d<S_c(coarse)>/dK_a(coarse) T_ab, where both derivatives
    are connected correlations: T = <S S>^-1 <S S'>.

    Args:
      moments: Of one blocking.
      num_operators: The truncation: how many operators, the first ones.
      is_odd: Whether the means vanish by symmetry, and so are not subtracted.

    Returns:
      The matrix.

    References:
      Swendsen, Phys. Rev. Lett. 42, 859 (1979), Eqs. 5 to 7.
    """
    means = PairMoments(*(np.mean(field, axis=0) for field in moments))
    coarse, fine = means.coarse * (not is_odd), means.fine * (not is_odd)
    kept = slice(num_operators)
    within = (means.coarse_coarse - np.outer(coarse, coarse))[kept, kept]
    between = (means.coarse_fine - np.outer(coarse, fine))[kept, kept]
    return np.linalg.solve(within, between)


def leading_exponent(
    moments: PairMoments, *, num_operators: int, is_odd: bool, scale: float = 2.0
) -> Jackknifed:
    """Exponent y = ln lambda / ln b of the largest eigenvalue of `rg_matrix`.

    Args:
      moments: Of one blocking, at least two bins.
      num_operators: The truncation.
      is_odd: Sector of the operators.
      scale: Scale factor b of the blocking.

    Returns:
      y with its jack-knife error; NaN where the largest eigenvalue is not a positive number.

    Raises:
      ValueError: If there are fewer than two bins or too many operators are asked for.

    References:
      Swendsen, Phys. Rev. Lett. 42, 859 (1979).
    """
    available = moments.fine.shape[1]
    is_valid = 1 <= num_operators <= available
    require(is_valid, "num_operators", f"must be 1 to {available}", num_operators)

    def exponent(*fields: np.ndarray) -> np.ndarray:
        matrix = rg_matrix(PairMoments(*fields), num_operators=num_operators, is_odd=is_odd)
        eigenvalues = np.linalg.eigvals(matrix)
        largest = eigenvalues[np.argmax(np.abs(eigenvalues))]
        is_positive = np.isreal(largest) and largest.real > 0
        return np.log(largest.real) / np.log(scale) if is_positive else np.array(np.nan)

    return jackknife(exponent, moments)


def jackknife(
    statistic: Callable[..., np.ndarray], arrays: Sequence[Num[np.ndarray, "bin *rest"]]
) -> Jackknifed:
    """Standard error of any smooth function of means, by leaving out one bin at a time.

    Args:
      statistic: Takes the arrays, [bin ...] with any number of bins, and returns a number or array.
      arrays: Means of each bin; bins must be independent and equally large.

    Returns:
      The statistic of all bins and its error.

    Raises:
      ValueError: If there are fewer than two bins.

    References:
      Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM (1982).
    """
    num_bins = len(arrays[0])
    require(num_bins >= 2, "arrays", "must hold at least 2 bins", num_bins)
    left_out = np.array(
        [statistic(*(np.delete(x, i, axis=0) for x in arrays)) for i in range(num_bins)]
    )
    error = np.sqrt((num_bins - 1) * np.var(left_out, axis=0))
    return Jackknifed(value=np.asarray(statistic(*arrays)), error=error)


def binder_cumulant(
    second: Float[np.ndarray, "*any"], fourth: Float[np.ndarray, "*any"]
) -> Float[np.ndarray, "*any"]:
    """U = 1 - <m^4> / (3 <m^2>^2): 2/3 in full order, 0 in full disorder.

    Args:
      second: <m^2>.
      fourth: <m^4>.

    Returns:
      The cumulant.

    References:
      Binder, Z. Phys. B 43, 119 (1981).
    """
    return 1 - fourth / (3 * second**2)


def binder_crossing(
    temperature: Float[np.ndarray, " temperature"],
    small: Float[np.ndarray, "bin moment temperature"],
    large: Float[np.ndarray, "bin moment temperature"],
) -> Jackknifed:
    """Temperature at which two sizes have the same cumulant.

    The difference of the two cumulants is fitted with a parabola in temperature; the crossing is
    its root inside the range.

    Args:
      temperature: At least 3, around the crossing.
      small: <m^2> and <m^4> of the smaller size, per bin.
      large: Moments of the larger size; as many bins.

    Returns:
      Crossing with its jack-knife error; NaN if the cumulants do not cross once in the range.

    Raises:
      ValueError: If shapes do not fit.

    References:
      Binder, Z. Phys. B 43, 119 (1981).
    """
    temperature, small, large = (np.asarray(x, float) for x in (temperature, small, large))
    require(temperature.ndim == 1 and temperature.size >= 3, "temperature",
            "must be at least 3 values", temperature)  # fmt: skip
    is_valid = small.shape == large.shape and small.shape[1:] == (2, temperature.size)
    require(is_valid, "small, large", "must be [bin 2 temperature] of one shape",
            (small.shape, large.shape))  # fmt: skip
    middle = temperature.mean()

    def crossing(small: np.ndarray, large: np.ndarray) -> np.ndarray:
        difference = binder_cumulant(*large.mean(axis=0)) - binder_cumulant(*small.mean(axis=0))
        roots = np.roots(np.polyfit(temperature - middle, difference, 2)) + middle
        inside = [
            root.real for root in roots
            if np.isreal(root) and temperature.min() <= root.real <= temperature.max()
        ]  # fmt: skip
        return np.array(inside[0] if len(inside) == 1 else np.nan)

    return jackknife(crossing, (small, large))
