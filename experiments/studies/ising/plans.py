"""What the Ising experiment measures: one plan per question, and how a bin is reduced.

A bin is hundreds of cluster sweeps long, and the autocorrelation time of the energy at the critical
point is five (64 x 64), so bins are independent.
"""

import functools

import jax.numpy as jnp
import numpy as np

from experiments.studies.ising.sampling import Plan
from imp_rg.rg import ising
from imp_rg.rg.ising import CRITICAL_TEMPERATURE
from imp_rg.rg.monte_carlo_rg import pair_moments

SMALLEST_LEVEL = 4
"""Side of the last blocked lattice whose operators are measured."""

SMALLEST_COUPLINGS = 8
"""Side of the last one whose couplings are: terms must not meet themselves around the torus."""

BINDER_WINDOW = 0.64
"""Half of the range of temperatures around the critical one, relative to it and times the size."""

NUM_BINDER_TEMPERATURES = 5


Temperatures = tuple[float, float, float]


def make_plans(
    size: int, temperatures: Temperatures, *, num_bins: int, num_samples: int
) -> list[Plan]:
    """Exponents, Binder cumulants of three sizes, energies by both updates, couplings.

    Args:
      size: Spins along each side of the largest lattice.
      temperatures: Below, at and above the critical one, relative to it.
      num_bins: Bins for exponents, per replica; other plans take a quarter, at least 2.
      num_samples: Observations in a bin.
    """
    below, at, above = (t * CRITICAL_TEMPERATURE for t in temperatures)
    make = functools.partial(
        Plan, size=size, update=ising.cluster_sweep, num_bins=max(2, num_bins // 4),
        num_samples=num_samples, sweeps_between=2, warm_up=1,
    )  # fmt: skip
    exponents = make(
        name="exponents",
        temperatures=(CRITICAL_TEMPERATURE,) * 16,
        observe=functools.partial(ising.operators_of_levels, smallest=SMALLEST_LEVEL),
        reduce=_reduce_pairs,
        num_bins=num_bins,
    )
    couplings = make(
        name="couplings",
        temperatures=(below, at, above) * 5,
        observe=observe_levels,
        reduce=functools.partial(_reduce_levels, num_temperatures=3),
        num_samples=num_samples // 10,
        sweeps_between=10,
    )
    binder = [
        make(
            name=f"binder {part}",
            size=part,
            temperatures=tuple(binder_temperatures(size)) * (3 * size // part),
            observe=observe_magnetisation,
            reduce=_reduce_magnetisation,
        )
        for part in (size // 4, size // 2, size)
    ]
    # Metropolis would take thousands of sweeps to forget a configuration at the critical point.
    energy = [
        make(
            name=f"energy {name}",
            temperatures=chains * 5,
            observe=observe_energy,
            reduce=functools.partial(_reduce_energy, num_temperatures=len(chains)),
            update=update,
            warm_up=warm_up,
        )
        for name, update, chains, warm_up in (
            ("cluster", ising.cluster_sweep, (below, at, above), 1),
            ("metropolis", ising.metropolis_sweep, (below, above), 8),
        )
    ]
    return [exponents, *binder, *energy, couplings]


def binder_temperatures(size: int) -> np.ndarray:
    """Temperatures at which the cumulants of all sizes are measured; `size` is the largest."""
    half_width = BINDER_WINDOW / size
    return CRITICAL_TEMPERATURE * (
        1 + np.linspace(-half_width, half_width, NUM_BINDER_TEMPERATURES)
    )


def observe_magnetisation(key, spins):
    """Magnetisation per spin."""
    del key
    return spins.mean((1, 2), dtype=jnp.float32)


def observe_energy(key, spins):
    """Energy, summed over the lattice."""
    del key
    return -ising.even_operators(spins)[:, 0], jnp.int32(spins[0].size)


def observe_levels(key, spins):
    """Spins of every blocking level."""
    return ising.block_spins_to(key, spins, smallest=SMALLEST_COUPLINGS)


def _reduce_pairs(observed):
    """Moments of every pair of levels, in both sectors."""
    return [
        [
            pair_moments(
                *(sums[:, :, level].reshape(1, -1, sums.shape[-1]) for level in (n, n + 1))
            )
            for n in range(sums.shape[2] - 1)
        ]
        for sums in observed
    ]


def _reduce_magnetisation(magnetisation):
    """<m^2> and <m^4> by temperature, [1 moment temperature]."""
    by_temperature = magnetisation.astype(float).reshape(-1, NUM_BINDER_TEMPERATURES)
    return np.stack([(by_temperature**power).mean(axis=0) for power in (2, 4)])[None]


def _reduce_energy(observed, *, num_temperatures):
    """Mean energy per spin by temperature, [1 temperature]."""
    energy, num_spins = observed
    return (energy / num_spins[0]).reshape(-1, num_temperatures).mean(axis=0)[None]


def _reduce_levels(levels, *, num_temperatures):
    """Histograms of local fields, [1 temperature spin field_state] for each level."""
    return [
        np.stack(
            [
                ising.field_histogram(spins[:, t::num_temperatures].reshape(-1, *spins.shape[-2:]))
                for t in range(num_temperatures)
            ]
        )[None]
        for spins in levels
    ]
