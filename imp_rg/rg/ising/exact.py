"""What is known exactly about the two-dimensional Ising model.

In: coupling K = 1 / T (J = 1) and the size of a torus. Out: critical point, exponents, energy.
"""

import numpy as np

from imp_rg.config import require

CRITICAL_COUPLING = np.log(1 + np.sqrt(2)) / 2
"""K_c on the infinite lattice, where sinh 2K = 1 (Kramers and Wannier 1941)."""

CRITICAL_TEMPERATURE = 1 / CRITICAL_COUPLING

THERMAL_EXPONENT, MAGNETIC_EXPONENT = 1.0, 15 / 8
"""y_t = 1 / nu and y_h = (d + 2 - eta) / 2 (Onsager 1944, Yang 1952)."""


def torus_energy(coupling: float, size: int) -> float:
    """Mean energy per spin on a torus of size x size spins, exact.

    -d(ln Z)/dK / size^2 of Kaufman's partition function, by the complex-step derivative, which is
    exact to rounding.

    Args:
      coupling: K = 1 / T, positive.
      size: Spins along each side, at least 2; at 2 every bond counts twice.

    Returns:
      Energy in units of J; -sqrt(2) at the critical coupling as the size grows.

    Raises:
      ValueError: If an argument is out of range.

    References:
      Kaufman, Phys. Rev. 76, 1232 (1949), Eq. 50.
    """
    require(coupling > 0, "coupling", "must be positive", coupling)
    require(size >= 2, "size", "must be at least 2", size)
    step = 1e-30
    return float(-_log_partition(coupling + 1j * step, size).imag / step / size**2)


def _log_partition(coupling: complex, size: int) -> complex:
    """Logarithm of Kaufman's Z at a coupling that may be complex.

    2 Z / (2 sinh 2K)^(N/2) is a sum of four products over r of 2 cosh or 2 sinh of L gamma / 2,
    two over odd and two over even indices. All gammas are positive but gamma_0, which changes sign
    at the critical point, so its factors are kept out of the logarithms.
    """
    odd, even = (_log_products(coupling, size, offset) for offset in (1, 0))
    half_zero = size * (2 * coupling + np.log(np.tanh(coupling))) / 2
    scale = abs(half_zero.real)  # keeps the two factors of gamma_0 from overflowing
    grow, decay = np.exp(half_zero - scale), np.exp(-half_zero - scale)
    ratios = (
        np.exp(odd[1] - odd[0]),
        (grow + decay) * np.exp(even[0] - odd[0] + scale),
        (grow - decay) * np.exp(even[1] - odd[0] + scale),
    )
    prefactor = size**2 / 2 * np.log(2 * np.sinh(2 * coupling)) - np.log(2)
    return complex(prefactor + odd[0] + np.log(1 + sum(ratios)))


def _log_products(coupling: complex, size: int, offset: int) -> tuple[complex, complex]:
    """Logarithms of prod 2 cosh(L gamma / 2) and prod 2 sinh(L gamma / 2), gamma_0 left out."""
    index = 2 * np.arange(size) + offset
    index = index[index > 0]
    double = 2 * coupling
    half = size * np.arccosh(np.cosh(double) / np.tanh(double) - np.cos(np.pi * index / size)) / 2
    small = np.exp(-2 * half)
    return np.sum(half + np.log(1 + small)), np.sum(half + np.log(1 - small))
