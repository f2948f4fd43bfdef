"""Operators S_a of the renormalised Hamiltonians: sums over the lattice of products of spins.

In: spins int8 [chain row column] of any blocking level. Out: int32 [chain operator]. Sums and not
means, because Swendsen's matrix is written in sums.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int8, Int32, Key

from imp_rg.rg.ising.blocking import block_spins_to

EVEN_OPERATORS = (
    "nearest",
    "diagonal",
    "plaquette",
    "third",
    "knight",
    "diagonal2",
    "plaquette2",
)
"""Pairs at (0,1); (1,1); the four spins of a unit square; pairs at (0,2); (1,2); (2,2); the four
corners of a 2 x 2 square."""

ODD_OPERATORS = ("magnetisation", "corner", "row", "wedge")
"""One spin; three of a unit square; three in a row; a spin with two diagonal neighbours on the same
side."""


def even_operators(
    spins: Int8[Array, "chain row column"],
) -> Int32[Array, "chain even_operator"]:
    """Sums of `EVEN_OPERATORS`, every bond or square counted once, periodic.

    Args:
      spins: +1 or -1.

    Returns:
      One sum per chain and operator, ordered as `EVEN_OPERATORS`.

    References:
      House definition; the set of Swendsen, Phys. Rev. Lett. 42, 859 (1979), is the beginning.
    """
    right, right2 = _shift(spins, 0, 1), _shift(spins, 0, 2)
    down, down2 = _shift(spins, 1, 0), _shift(spins, 2, 0)
    across = right * _shift(right, 1, 0)
    across2 = right2 * _shift(right2, 2, 0)
    knight = _shift(right, 2, 0) + _shift(right, -2, 0)
    knight += _shift(right2, 1, 0) + _shift(right2, -1, 0)
    return jnp.stack(
        [
            _total(spins * (right + down)),
            _total(spins * _shift(right, 1, 0) + right * down),
            _total(spins * down * across),
            _total(spins * (right2 + down2)),
            _total(spins * knight),
            _total(spins * _shift(right2, 2, 0) + right2 * down2),
            _total(spins * down2 * across2),
        ],
        axis=-1,
    )


def odd_operators(spins: Int8[Array, "chain row column"]) -> Int32[Array, "chain odd_operator"]:
    """Sums of `ODD_OPERATORS`, every triple counted once, periodic.

    Args:
      spins: +1 or -1.

    Returns:
      One sum per chain and operator, ordered as `ODD_OPERATORS`.

    References:
      House definition; magnetisation and three-spin operators as in Swendsen (1979).
    """
    right, down = _shift(spins, 0, 1), _shift(spins, 1, 0)
    left, up = _shift(spins, 0, -1), _shift(spins, -1, 0)
    opposite = _shift(right, 1, 0)
    # Each triple of a square is the product of all four times the spin left out.
    square = spins * right * down * opposite
    ahead = [opposite, _shift(down, 0, -1), _shift(up, 0, -1), _shift(right, -1, 0)]
    wedges = sum(ahead[i] * ahead[(i + 1) % 4] for i in range(4))
    return jnp.stack(
        [
            _total(spins),
            _total(square * (spins + right + down + opposite)),
            _total(spins * (left * right + up * down)),
            _total(spins * wedges),
        ],
        axis=-1,
    )


def operators_of_levels(
    key: Key[Array, ""], spins: Int8[Array, "chain row column"], *, smallest: int
) -> tuple[Int32[Array, "chain level even_operator"], Int32[Array, "chain level odd_operator"]]:
    """Both families of operators on every blocking level down to `smallest` spins a side.

    Args:
      key: For the ties of block spins.
      spins: +1 or -1 on a square whose side is `smallest` times a power of two.
      smallest: Side of the last level.

    Returns:
      Sums of even and of odd operators.

    Raises:
      ValueError: If halving does not lead to `smallest`.

    References:
      House definition.
    """
    levels = block_spins_to(key, spins, smallest=smallest)
    even = jnp.stack([even_operators(level) for level in levels], axis=1)
    return even, jnp.stack([odd_operators(level) for level in levels], axis=1)


def _shift(spins: Array, rows: int, columns: int) -> Array:
    """The spin that many rows down and columns to the right of each site."""
    return jnp.roll(spins, (-rows, -columns), (-2, -1))


def _total(terms: Array) -> Array:
    return terms.sum((-2, -1), dtype=jnp.int32)
