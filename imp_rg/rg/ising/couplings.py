"""Renormalised couplings K_a, read off configurations of any blocking level.

In: spins [chain row column]. Out: how often a spin meets which local fields, and from that the
couplings of the Hamiltonian -H/T = sum_a K_a S_a that the configurations obey.
"""

import numpy as np
from jaxtyping import Float, Int, Int8

from imp_rg.config import require

FIELD_OPERATORS = ("nearest", "diagonal", "plaquette", "third")
"""Operators whose couplings are measured; each has four terms around a site."""

NUM_VALUES = 5
"""A field of four terms is -4, -2, 0, 2 or 4."""

MAX_STEPS = 100


def field_histogram(
    spins: Int8[np.ndarray, "chain row column"],
) -> Int[np.ndarray, "spin field_state"]:
    """Counts, over all sites, of a spin together with its local fields.

    The field of operator a at site l is the sum over the terms of S_a that hold s_l of the product
    of their other spins. Counts add up over configurations and are all the couplings need.

    Args:
      spins: +1 or -1; sides of at least 5, so that no term meets itself around the torus.

    Returns:
      Counts; row 0 is spin -1, columns are mixed-radix numbers of the fields (first one slowest).

    Raises:
      ValueError: If a side is too short.

    References:
      House definition.
    """
    spins = np.asarray(spins)
    require(min(spins.shape[1:]) >= 5, "spins", "sides must be at least 5", spins.shape[1:])
    state = (spins > 0).astype(np.int32)
    for field in _local_fields(spins):
        state = NUM_VALUES * state + (field + 4) // 2
    num_states = NUM_VALUES ** len(FIELD_OPERATORS)
    return np.bincount(state.ravel(), minlength=2 * num_states).reshape(2, num_states)


def renormalized_couplings(
    histogram: Int[np.ndarray, "spin field_state"], *, num_operators: int = len(FIELD_OPERATORS)
) -> Float[np.ndarray, " operator"]:
    """Couplings under which every operator has the mean that Callen's identity gives it.

    Solves sum_l <(s_l - tanh(sum_b K_b h_bl)) h_al> = 0 for all a by Newton's method. These are
    also the equations of the largest pseudo-likelihood, which is concave, so the solution is the
    only one.

    Args:
      histogram: Of `field_histogram`, summed over configurations.
      num_operators: How many of `FIELD_OPERATORS` the Hamiltonian may hold, the first ones.

    Returns:
      K_a; all NaN where no finite couplings solve the equations, as for configurations so ordered
      that no spin ever stands against its fields.

    Raises:
      ValueError: If `num_operators` is out of range.

    References:
      Swendsen, Phys. Rev. Lett. 52, 1165 (1984), Eqs. 4 to 6.
    """
    is_valid = 1 <= num_operators <= len(FIELD_OPERATORS)
    require(is_valid, "num_operators", f"must be 1 to {len(FIELD_OPERATORS)}", num_operators)
    digits = np.indices((NUM_VALUES,) * len(FIELD_OPERATORS)).reshape(len(FIELD_OPERATORS), -1)
    fields = (2.0 * digits.T - 4)[:, :num_operators]
    total = histogram.sum(axis=0) / histogram.sum()
    net = (histogram[1] - histogram[0]) / histogram.sum()
    couplings = np.zeros(num_operators)
    for _ in range(MAX_STEPS):
        mean = np.tanh(fields @ couplings)
        residual = (net - total * mean) @ fields
        hessian = (fields.T * (total * (1 - mean**2))) @ fields
        if np.linalg.cond(hessian) > 1e12:
            break
        step = np.linalg.solve(hessian, residual)
        # Far from the solution tanh is flat and a full step would overshoot.
        couplings += step / max(1.0, 2 * np.abs(step).max())
        if np.abs(step).max() < 1e-12:
            return couplings
    return np.full(num_operators, np.nan)


def _local_fields(spins: np.ndarray) -> list[np.ndarray]:
    """Fields of `FIELD_OPERATORS` at every site."""

    def shift(rows: int, columns: int) -> np.ndarray:
        return np.roll(spins, (-rows, -columns), (1, 2))

    axes = ((0, 1), (1, 0), (0, -1), (-1, 0))
    beside = [shift(*axis) for axis in axes]
    corners = [shift(*np.add(axes[i], axes[(i + 1) % 4])) for i in range(4)]
    squares = [beside[i] * corners[i] * beside[(i + 1) % 4] for i in range(4)]
    beyond = [shift(2 * rows, 2 * columns) for rows, columns in axes]
    return [
        np.stack(terms).sum(axis=0, dtype=np.int32) for terms in (beside, corners, squares, beyond)
    ]
