"""Finite-size scaling where the answers are known: site percolation and the Ising model.

In: how much to sample. Out: curves of several sizes, their collapse, and the exact values.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float

from imp_rg.rg import collapse
from imp_rg.rg.ising import CRITICAL_TEMPERATURE, THERMAL_EXPONENT, cluster_sweep
from imp_rg.rg.ising.updates import sample
from imp_rg.rg.monte_carlo_rg import binder_cumulant
from imp_rg.rg.percolation import NU, NUM_BINS, THRESHOLD, wrapping_curve

DENSITIES = np.linspace(0.54, 0.65, 45)

NUM_TEMPERATURES, NUM_CHAINS = 17, 8

SIZES = {
    "percolation": {"smoke": (16, 32, 64), "default": (32, 64, 128)},
    "ising": {"smoke": (8, 16, 32), "default": (16, 32, 64)},
}
"""Sides of the lattices by model and preset."""

SEGMENTS = 4
"""Bins that each chain is cut into; long against the correlation time of a few sweeps."""

LABELS = {
    "percolation": ("density of occupied sites", "probability of winding"),
    "ising": ("temperature", "Binder cumulant"),
}
"""What x and y of the curves are."""


Curve = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""x, y and its error [point], and independent samples of y [sample point]."""


class Check(NamedTuple):
    """A collapse beside what is known.

    Attributes:
      points: Columns x, y, y_err, size.
      table: One row per quantity: model, exact, found, error, s_plus_one, deviation_percent,
        quality.
    """

    points: pd.DataFrame
    table: pd.DataFrame


def run_check(model: str, preset: str, *, seed: int) -> Check:
    """Collapses percolation or the Ising model; a tenth of the samples in a smoke test."""
    sizes = SIZES[model]["smoke" if preset == "smoke" else "default"]
    check = check_percolation if model == "percolation" else check_ising
    return check(seed, sizes=sizes, scale=0.1 if preset == "smoke" else 1.0)


def check_percolation(seed: int, *, sizes: Sequence[int], scale: float) -> Check:
    """Probability that a cluster winds around the torus: p_c and nu = 4/3.

    Args:
      seed: Of the lattices.
      sizes: Sides of the lattices.
      scale: Times 10,000 samples at L = 128; smaller lattices get more, as 1 / L.
    """

    def sample_curve(size: int) -> Curve:
        num_bins = max(1, round(scale * 10_000 * 128 / size / NUM_BINS))
        rng = np.random.default_rng([seed, size])
        curve = wrapping_curve(rng, size, DENSITIES, num_samples=NUM_BINS * num_bins)
        return DENSITIES, curve.probability, curve.error, curve.samples

    exact = {"x_c": THRESHOLD, "nu": NU}
    return _check("percolation", sizes, sample_curve, (0.6, 1.0), exact)


def check_ising(seed: int, *, sizes: Sequence[int], scale: float) -> Check:
    """Binder's cumulant: T_c and nu = 1 / y_t = 1.

    Temperatures span 2.27 +- 3.2 / L, so that all sizes see a like part of the curve.

    Args:
      seed: Of the chains.
      sizes: Sides of the lattices, even.
      scale: Times 2,000 cluster sweeps a chain at L = 64; smaller lattices get more, as 1 / L.
    """

    def sample_curve(size: int) -> Curve:
        temperature = 2.27 + 3.2 / size * np.linspace(-1, 1, NUM_TEMPERATURES)
        num_sweeps = SEGMENTS * max(10, round(scale * 2000 * 64 / size / SEGMENTS))
        key = jax.random.fold_in(jax.random.key(seed), size)
        bins = _binder_bins(key, size, temperature, num_sweeps)
        error = bins.std(axis=0, ddof=1) / np.sqrt(len(bins))
        return temperature, bins.mean(axis=0), error, bins

    exact = {"x_c": CRITICAL_TEMPERATURE, "nu": 1 / THERMAL_EXPONENT}
    return _check("ising", sizes, sample_curve, (2.27, 1.2), exact)


def _binder_bins(
    key: jax.Array, size: int, temperature: np.ndarray, num_sweeps: int
) -> Float[np.ndarray, "bin temperature"]:
    """Jack-knife pseudo-values of the cumulant: mean and scatter give the value and its error."""
    coupling = jnp.repeat(1 / jnp.asarray(temperature, jnp.float32), NUM_CHAINS)
    spins = jnp.ones((coupling.size, size, size), jnp.int8)
    options = {"sweeps_between": 1, "update": cluster_sweep, "observe": _moments}
    settle_key, key = jax.random.split(key)
    spins, _ = sample(settle_key, spins, coupling, num_samples=num_sweeps // 10, **options)
    _, moments = sample(key, spins, coupling, num_samples=num_sweeps, **options)
    moments = np.asarray(moments, float)
    moments = moments.reshape(SEGMENTS, -1, 2, len(temperature), NUM_CHAINS).mean(axis=1)
    moments = moments.transpose(1, 0, 3, 2).reshape(2, -1, len(temperature))
    total, num_bins = moments.sum(axis=1, keepdims=True), moments.shape[1]
    left_out = binder_cumulant(*((total - moments) / (num_bins - 1)))
    return num_bins * binder_cumulant(*(total / num_bins)) - (num_bins - 1) * left_out


def _moments(key: jax.Array, spins: jax.Array) -> jax.Array:
    """m^2 and m^4 of every chain, [2 chain]."""
    del key
    squared = jnp.mean(spins.astype(jnp.float32), axis=(1, 2)) ** 2
    return jnp.stack([squared, squared**2])


def _check(
    name: str,
    sizes: Sequence[int],
    sample_curve: Callable[[int], Curve],
    start: tuple[float, float],
    exact: dict[str, float],
) -> Check:
    """Collapses a dimensionless quantity and puts the result beside the exact values."""
    parts, bins = [], []
    for size in sizes:
        x, y, y_err, samples = sample_curve(size)
        parts.append(pd.DataFrame({"x": x, "y": y, "y_err": y_err, "size": size}))
        bins.append(samples)
    points = pd.concat(parts, ignore_index=True)
    found = collapse(
        *points.to_numpy(float).T, start=(*start, 0.0), hold=("zeta",),
        samples=np.concatenate(bins, axis=1),
    )  # fmt: skip
    table = pd.DataFrame({
        "model": name,
        "quantity": exact.keys(),
        "exact": exact.values(),
        "found": [getattr(found, quantity) for quantity in exact],
        "error": [getattr(found, f"{quantity}_error") for quantity in exact],
        "s_plus_one": [found.s_plus_one[i].mean() for i in range(len(exact))],
    })  # fmt: skip
    deviation = 100 * (table["found"] / table["exact"] - 1)
    return Check(points, table.assign(deviation_percent=deviation, quality=found.quality))
