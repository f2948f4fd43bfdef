"""Monte Carlo updates of the Ising model on a torus.

In: a key, spins int8 [chain row column] and one coupling K = 1 / T per chain. Out: spins. Chains
are independent and may differ in temperature. The chain axis is written out instead of vmapped: a
vmapped gather or scatter looks up pairs of indices, which made the cluster update three times
slower on CPU, and one flat index over all chains does the same.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int8, Int32, Key

from imp_rg.config import require

Update = Callable[[Array, Array, Array], Array]
"""`update(key, spins, coupling)`: spins after one sweep."""

Observe = Callable[[Array, Array], Any]
"""`observe(key, spins)`: arrays; the key is for ties of block spins."""

WALL = 1 << 30
"""A bit above all labels: a label with it set never wins a minimum."""


def metropolis_sweep(
    key: Key[Array, ""],
    spins: Int8[Array, "chain row column"],
    coupling: Float[Array, " chain"],
) -> Int8[Array, "chain row column"]:
    """Offers every spin a flip once, the two colors of a checkerboard in turn.

    Spins of one color do not touch, so all of them are offered at the same time.

    Args:
      key: One uniform number per spin.
      spins: +1 or -1; both sides even, or colors would meet across the boundary.
      coupling: K = 1 / T.

    Returns:
      Spins after the sweep.

    Raises:
      ValueError: If a side is odd.

    References:
      Metropolis et al., J. Chem. Phys. 21, 1087 (1953).
    """
    rows, columns = spins.shape[1:]
    require(rows % 2 == 0 and columns % 2 == 0, "spins", "sides must be even", (rows, columns))
    uniform = jax.random.uniform(key, spins.shape)
    four, eight = (jnp.exp(-energy * coupling)[:, None, None] for energy in (4, 8))
    # A flip costs 2 s h in energy; this is the largest s h that the random number pays for.
    pays_for = 2 * (uniform < four).astype(jnp.int8) + 2 * (uniform < eight).astype(jnp.int8)
    color = (jnp.arange(rows)[:, None] + jnp.arange(columns)[None])[None] % 2

    def half_sweep(turn, spins):
        field = sum(jnp.roll(spins, step, axis) for axis in (1, 2) for step in (1, -1))
        flips = (spins * field <= pays_for) & (color == turn)
        return jnp.where(flips, -spins, spins)

    # A loop, because XLA would fuse both halves and make the first anew for every neighbour.
    return lax.fori_loop(0, 2, half_sweep, spins)


def cluster_sweep(
    key: Key[Array, ""],
    spins: Int8[Array, "chain row column"],
    coupling: Float[Array, " chain"],
) -> Int8[Array, "chain row column"]:
    """Swendsen-Wang: bonds between equal neighbours, a random spin for every cluster.

    An equal pair is bonded with probability p = 1 - exp(-2K). One uniform number per site decides
    both its bonds, right on [0, p) and down on [0, p^2) and [p, p + p(1 - p)): each with
    probability p, both with p^2, so they are independent.

    Args:
      key: One uniform number per spin and one bit per cluster.
      spins: +1 or -1.
      coupling: K = 1 / T.

    Returns:
      Spins after the sweep.

    References:
      Swendsen and Wang, Phys. Rev. Lett. 58, 86 (1987).
    """
    bond_key, spin_key = jax.random.split(key)
    uniform = jax.random.uniform(bond_key, spins.shape)
    p = -jnp.expm1(-2 * coupling)[:, None, None]
    opens_right = uniform < p
    opens_down = (uniform < p**2) | ((uniform >= p) & (uniform < p * (2 - p)))
    labels = cluster_labels(
        opens_right & (spins == jnp.roll(spins, -1, 2)),
        opens_down & (spins == jnp.roll(spins, -1, 1)),
    )
    words = jax.random.bits(spin_key, (-(-spins.size // 32),))
    is_up = (_look_up(words, labels >> 5) >> (labels & 31).astype(jnp.uint32)) & 1
    return (2 * is_up.astype(jnp.int8) - 1).reshape(spins.shape)


def cluster_labels(
    right: Bool[Array, "chain row column"], down: Bool[Array, "chain row column"]
) -> Int32[Array, " site"]:
    """Smallest site index of each site's cluster, sites counted through all chains.

    Every round takes the minimum over bonded neighbours, hands it to the site that the old label
    names, which is how whole clusters merge at once, and follows labels to their own labels twice.
    About seven rounds settle a critical lattice of 64 x 64.

    Args:
      right: Whether a site is bonded to its right neighbour, periodic.
      down: Whether it is bonded to the one below.

    Returns:
      Labels, equal on a cluster and different between clusters.

    References:
      House definition; hooking and pointer jumping after Shiloach and Vishkin, J. Algorithms 3,
      57 (1982).
    """
    walls = [
        jnp.where(bonds, 0, WALL)
        for bonds in (right, jnp.roll(right, 1, 2), down, jnp.roll(down, 1, 1))
    ]
    shifts = ((-1, 2), (1, 2), (-1, 1), (1, 1))

    def nearby(labels):
        grid = labels.reshape(right.shape)
        lowest = grid
        for wall, (step, axis) in zip(walls, shifts, strict=True):
            lowest = jnp.minimum(lowest, jnp.roll(grid, step, axis) | wall)
        return lowest.reshape(-1)

    def relabel(state):
        labels, _ = state
        lowest = nearby(labels)
        merged = lowest.at[labels].min(lowest, mode="promise_in_bounds")
        # A loop, because XLA would fuse two look-ups in a row into four.
        followed = lax.fori_loop(0, 2, lambda _, x: _look_up(x, x), merged)
        return followed, jnp.any(followed != labels)

    start = jnp.arange(right.size, dtype=jnp.int32)
    return lax.while_loop(lambda state: state[1], relabel, (start, jnp.bool_(True)))[0]


@functools.partial(jax.jit, static_argnames=("num_samples", "sweeps_between", "update", "observe"))
def sample(
    key: Key[Array, ""],
    spins: Int8[Array, "chain row column"],
    coupling: Float[Array, " chain"],
    *,
    num_samples: int,
    sweeps_between: int,
    update: Update,
    observe: Observe,
) -> tuple[Int8[Array, "chain row column"], Any]:
    """Runs chains and observes them; one compiled program whatever the couplings.

    Args:
      key: Of the whole stretch.
      spins: Where the chains stand.
      coupling: K = 1 / T of each chain.
      num_samples: How often to observe.
      sweeps_between: Sweeps before each observation.
      update: `cluster_sweep` or `metropolis_sweep`.
      observe: `observe(key, spins)`, any arrays.

    Returns:
      Spins at the end, and the observations with a leading axis [sample].

    References:
      House definition.
    """

    def step(spins, index):
        sweep_key, observe_key = jax.random.split(jax.random.fold_in(key, index))

        def sweep(i, spins):
            return update(jax.random.fold_in(sweep_key, i), spins, coupling)

        spins = lax.fori_loop(0, sweeps_between, sweep, spins)
        return spins, observe(observe_key, spins)

    return lax.scan(step, spins, jnp.arange(num_samples))


def observe_nothing(key: Key[Array, ""], spins: Int8[Array, "chain row column"]) -> tuple[()]:
    """For `sample`, where only the spins at the end count."""
    del key, spins
    return ()


def _look_up(table: Array, index: Array) -> Array:
    return table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
