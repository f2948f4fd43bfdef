"""What the flow would be without learning: the Gaussian null, and the excess over any null.

In: size and scale of each tensor, or exponents of a flow and of its null. Out: shares per level and
block, or the excess with its interval. Tensors with few, large weights keep them under a global
threshold, so sigma differs between blocks before anything is learned.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.optimize import brentq
from scipy.special import erfc, erfcinv

from imp_rg.rg.estimate import Estimate, summarise


class NullFlow(NamedTuple):
    """Expected flow of untrained weights.

    Attributes:
      magnitude: Expected sum of surviving abs(theta) in each block.
      surviving: Expected number of surviving weights in each block.
      magnitude_share: `magnitude` over that of all tensors, in [0, 1].
      param_share: `surviving` over that of all tensors, in [0, 1].
    """

    magnitude: Float[np.ndarray, "level block"]
    surviving: Float[np.ndarray, "level block"]
    magnitude_share: Float[np.ndarray, "level block"]
    param_share: Float[np.ndarray, "level block"]


def gaussian_null_flow(
    sizes: Num[np.ndarray, " tensor"],
    scales: Float[np.ndarray, " tensor"],
    block_of: Int[np.ndarray, " tensor"],
    densities: Float[np.ndarray, " level"],
) -> NullFlow:
    """Flow of Gaussian weights under one global magnitude threshold, in closed form.

    At threshold t a tensor of N weights with standard deviation s keeps N erfc(t / (s sqrt 2)) of
    them, with summed magnitude N s sqrt(2/pi) exp(-t^2 / (2 s^2)); t solves sum of survivors =
    density * sum of N. A Kaiming fan_out ResNet-50 (its 52 convolutions after the stem, s^2 = 2 /
    (k k out), levels 0..17 at density 0.8^n, which are 17 transitions from the dense network on)
    has stage sigmas 0.341, 0.227, 0.077, -0.216 by the paper's estimator.

    Args:
      sizes: Number of weights of each prunable tensor.
      scales: Standard deviation of each tensor, at initialisation or measured.
      block_of: Block of each tensor, -1 for in the denominator only.
      densities: Kept fraction of all weights at each level, in (0, 1].

    Returns:
      A `NullFlow`; shares sum to one if no tensor has block -1.

    Raises:
      ValueError: If lengths differ, sizes, scales or densities are out of range, or a block
        index below the largest has no tensor.

    References:
      House definition.
    """
    sizes, scales, block_of, densities = _check_tensors(sizes, scales, block_of, densities)
    thresholds = np.array([_threshold(sizes, scales, density) for density in densities])
    reduced = thresholds[:, None] / scales
    surviving = sizes * erfc(reduced / np.sqrt(2))
    magnitude = sizes * scales * np.sqrt(2 / np.pi) * np.exp(-(reduced**2) / 2)
    in_block = (block_of[:, None] == np.arange(block_of.max() + 1)).astype(float)
    return NullFlow(
        magnitude=magnitude @ in_block,
        surviving=surviving @ in_block,
        magnitude_share=magnitude @ in_block / magnitude.sum(axis=1, keepdims=True),
        param_share=surviving @ in_block / surviving.sum(axis=1, keepdims=True),
    )


def gaussian_null(
    sizes: Num[np.ndarray, " tensor"],
    scales: Float[np.ndarray, " tensor"],
    block_of: Int[np.ndarray, " tensor"],
    densities: Float[np.ndarray, " level"],
) -> Float[np.ndarray, "level block"]:
    """Magnitude shares of untrained Gaussian weights; see `gaussian_null_flow`.

    Args:
      sizes: Number of weights of each prunable tensor.
      scales: Standard deviation of each tensor.
      block_of: Block of each tensor, -1 for in the denominator only.
      densities: Kept fraction of all weights at each level, in (0, 1].

    Returns:
      Dimensionless shares.

    Raises:
      ValueError: As `gaussian_null_flow`.

    References:
      House definition.
    """
    return gaussian_null_flow(sizes, scales, block_of, densities).magnitude_share


def excess(
    sigma_per_seed: Float[np.ndarray, "seed block"],
    sigma_null_per_seed: Float[np.ndarray, "*seed block"],
    *,
    ci_level: float = 0.95,
) -> Estimate:
    """What a flow has beyond its null.

    Args:
      sigma_per_seed: Exponents of the flow; NaN leaves a seed out.
      sigma_null_per_seed: Exponents of the null on the same seeds, [seed block], or [block] if it
        is the same for all.
      ci_level: Coverage of the interval, in (0, 1).

    Returns:
      Mean of the per-seed differences with its t-interval, fields [block].

    Raises:
      ValueError: If the shapes do not fit.

    References:
      House definition.
    """
    sigma, null = np.asarray(sigma_per_seed, float), np.asarray(sigma_null_per_seed, float)
    if sigma.ndim != 2 or null.shape not in (sigma.shape, sigma.shape[1:]):
        raise ValueError(
            "sigma_null_per_seed must be [block] or shaped as sigma_per_seed [seed block], "
            f"got {null.shape} and {sigma.shape}"
        )
    return summarise(sigma - null, ci_level=ci_level)


def _threshold(sizes: np.ndarray, scales: np.ndarray, density: float) -> float:
    """Threshold t that keeps `density` of all weights."""
    if density == 1:
        return 0.0
    fractions = sizes / sizes.sum()

    def log_kept(t: float) -> float:
        return np.log(fractions @ erfc(t / (scales * np.sqrt(2)))) - np.log(density)

    # Were all tensors as narrow (wide) as the narrowest (widest), t would be low (high). The
    # margin keeps the signs apart when all scales are equal.
    low, high = np.sqrt(2) * erfcinv(density) * np.array([scales.min(), scales.max()])
    low, high = low * (1 - 1e-9), high * (1 + 1e-9)
    return float(brentq(log_kept, low, high, xtol=1e-15 * low, rtol=1e-15))  # pyright: ignore[reportArgumentType]


def _check_tensors(
    sizes: np.ndarray, scales: np.ndarray, block_of: np.ndarray, densities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    sizes, scales, densities = (np.asarray(x, float) for x in (sizes, scales, densities))
    block_of = np.asarray(block_of)
    if not (sizes.ndim == 1 and sizes.size and sizes.shape == scales.shape == block_of.shape):
        raise ValueError(
            "sizes, scales and block_of must be [tensor] of one length, "
            f"got shapes {sizes.shape}, {scales.shape}, {block_of.shape}"
        )
    for name, array in (("sizes", sizes), ("scales", scales)):
        if not np.all((array > 0) & np.isfinite(array)):
            raise ValueError(f"{name} must be positive and finite, got {array.min()}")
    is_density = (densities > 0) & (densities <= 1)
    if densities.ndim != 1 or not is_density.all():
        raise ValueError(f"densities must be [level] in (0, 1], got {densities}")
    if (
        set(block_of.tolist()) | {-1} != set(range(-1, int(block_of.max()) + 1))
        or max(block_of) < 0
    ):
        raise ValueError(f"block_of must use every index from 0 on, or -1, got {block_of}")
    return sizes, scales, block_of, densities
