"""Coarse-graining: 2 x 2 spins become one by majority.

In: spins int8 [chain row column]. Out: spins of half the size, or of every level down to a size.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int8, Key

from imp_rg.config import require


def block_spins(
    key: Key[Array, ""], spins: Int8[Array, "chain row column"]
) -> Int8[Array, "chain half_row half_column"]:
    """Majority of every 2 x 2 block, ties broken at random (scale factor b = 2).

    Args:
      key: For the ties.
      spins: +1 or -1; both sides even.

    Returns:
      Block spins, +1 or -1.

    Raises:
      ValueError: If a side is odd.

    References:
      Swendsen, Phys. Rev. Lett. 42, 859 (1979).
    """
    num_chains, rows, columns = spins.shape
    is_even = rows % 2 == 0 and columns % 2 == 0
    require(is_even, "spins", "sides must be even", (rows, columns))
    total = spins.reshape(num_chains, rows // 2, 2, columns // 2, 2).sum((2, 4), dtype=jnp.int8)
    tie = jax.random.rademacher(key, total.shape, jnp.int8)
    return jnp.where(total == 0, tie, jnp.sign(total))


def block_spins_to(
    key: Key[Array, ""], spins: Int8[Array, "chain row column"], *, smallest: int
) -> list[Int8[Array, "chain row_at_level column_at_level"]]:
    """Spins of every blocking level, the given ones first, down to `smallest` spins a side.

    Args:
      key: For the ties.
      spins: +1 or -1 on a square whose side is `smallest` times a power of two.
      smallest: Side of the last level, at least 2.

    Returns:
      One array a level, each half the size of the one before.

    Raises:
      ValueError: If halving does not lead from the side to `smallest`.

    References:
      House definition.
    """
    size = spins.shape[-1]
    num_blockings = max(size // max(smallest, 1), 1).bit_length() - 1
    is_reached = smallest >= 2 and smallest << num_blockings == size
    require(is_reached, "smallest", f"must be {size} halved some times, at least 2", smallest)
    levels = [spins]
    for level in range(num_blockings):
        levels.append(block_spins(jax.random.fold_in(key, level), levels[-1]))
    return levels
