"""Site percolation on a square torus: a phase transition whose answers are known.

In: random numbers. Out: whether a cluster of occupied sites winds around the torus, at every
density. Here it checks the finite-size scaling of `imp_rg.rg.scaling`: the threshold is 0.592746,
nu is 4/3, and at the threshold a cluster winds around a large torus with probability 0.690474.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from imp_rg.config import require

THRESHOLD = 0.59274605
"""Critical density, Newman and Ziff, Phys. Rev. Lett. 85, 4104 (2000)."""

NU = 4 / 3
"""den Nijs, J. Phys. A 12, 1857 (1979)."""

WRAPPING_AT_THRESHOLD = 0.690473725
"""Probability of winding in any direction, Pinson, J. Stat. Phys. 75, 1167 (1994)."""

SITES_PER_BATCH = 2**20

NUM_BINS = 50

IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
"""Neighbours of a site: four of its own lattice, none of the lattices of other samples."""


def wrapping_samples(
    rng: np.random.Generator,
    length: int,
    density: Float[np.ndarray, " density"],
    *,
    num_samples: int,
) -> Bool[np.ndarray, "sample density"]:
    """Whether a cluster winds around the torus, for independent samples at rising densities.

    Occupation is canonical: every site is occupied independently with the given density. A sample
    keeps one uniform number a site for all densities, so it winds from some density on, and that
    one is found by bisection: 50 densities cost six labelings.

    Args:
      rng: Draws length^2 numbers a sample.
      length: Side of the lattice, at least 2.
      density: Probabilities, rising, in [0, 1].
      num_samples: How many.

    Returns:
      One row a sample, False up to some density and True from there on.

    Raises:
      ValueError: If the side, the densities or the number of samples are out of range.

    References:
      Newman and Ziff, Phys. Rev. E 64, 016706 (2001), for the observable; bisection over nested
      configurations: house definition.
    """
    density = np.asarray(density, float)
    require(length >= 2, "length", "must be at least 2", length)
    require(num_samples >= 1, "num_samples", "must be at least 1", num_samples)
    rises = density.ndim == 1 and density.size > 0 and bool(np.all(np.diff(density) > 0))
    is_probability = rises and 0 <= density[0] and bool(density[-1] <= 1)
    require(is_probability, "density", "must rise in [0, 1]", density.tolist())
    batch = max(1, SITES_PER_BATCH // length**2)
    sizes = [min(batch, num_samples - done) for done in range(0, num_samples, batch)]
    firsts = [_first_wrapping(rng.random((n, length, length)), density) for n in sizes]
    return np.arange(density.size) >= np.concatenate(firsts)[:, None]


class WrappingCurve(NamedTuple):
    """Probability of winding at every density, ready for `imp_rg.rg.collapse`.

    Attributes:
      probability: Mean of (wins + 1) / (samples + 2), so that it is never 0 or 1.
      error: Its binomial standard error.
      samples: Means of `NUM_BINS` groups of samples, for the bootstrap.
    """

    probability: Float[np.ndarray, " density"]
    error: Float[np.ndarray, " density"]
    samples: Float[np.ndarray, "bin density"]


def wrapping_curve(
    rng: np.random.Generator,
    length: int,
    density: Float[np.ndarray, " density"],
    *,
    num_samples: int,
) -> WrappingCurve:
    """Probability of winding around the torus; see `wrapping_samples`.

    Args:
      rng: Draws length^2 numbers a sample.
      length: Side of the lattice, at least 2.
      density: Probabilities, rising, in [0, 1].
      num_samples: How many, a multiple of `NUM_BINS`.

    Returns:
      A `WrappingCurve`.

    Raises:
      ValueError: If something is out of range.

    References:
      House definition.
    """
    is_whole = num_samples > 0 and num_samples % NUM_BINS == 0
    require(is_whole, "num_samples", f"must be a multiple of {NUM_BINS}", num_samples)
    winds = wrapping_samples(rng, length, density, num_samples=num_samples)
    probability = (winds.sum(axis=0) + 1) / (num_samples + 2)
    return WrappingCurve(
        probability=probability,
        error=np.sqrt(probability * (1 - probability) / num_samples),
        samples=winds.reshape(NUM_BINS, -1, winds.shape[1]).mean(axis=1),
    )


def _first_wrapping(uniform: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Index of the first density at which each sample winds; their number if none."""
    low = np.zeros(len(uniform), int)
    high = np.full(len(uniform), density.size)
    for _ in range(density.size.bit_length()):
        is_open = np.flatnonzero(low < high)
        middle = (low + high)[is_open] // 2
        does_wrap = wraps(uniform[is_open] < density[middle][:, None, None])
        high[is_open[does_wrap]] = middle[does_wrap]
        low[is_open[~does_wrap]] = middle[~does_wrap] + 1
    return low


def wraps(occupied: Bool[np.ndarray, "sample row column"]) -> Bool[np.ndarray, " sample"]:
    """Whether a cluster of occupied sites winds around the torus in any direction.

    Clusters are labelled on the open lattice and joined across its two seams on the four-fold cover
    of the torus: two copies in each direction, a seam leading from copy to copy. A loop that cannot
    be contracted and does not cross itself crosses at least one of the seams an odd number of
    times, so it ends on another copy of the cluster it began on; contractible loops never do.

    Args:
      occupied: Sites that are there.

    Returns:
      One answer a sample.

    References:
      House definition; as the displacements of Machta et al., Phys. Rev. E 54, 1332 (1996).
    """
    labels = np.empty(occupied.shape, np.int32)
    num_labels = int(ndimage.label(occupied, IN_PLANE, output=labels))  # pyright: ignore[reportArgumentType]
    seams = (labels[:, :, -1], labels[:, :, 0]), (labels[:, -1], labels[:, 0])
    rows, columns = [], []
    for (before, after), flipped in zip(seams, (1, 2), strict=True):
        meets = (before > 0) & (after > 0)
        for copy in range(4):
            rows.append(4 * before[meets] + copy)
            columns.append(4 * after[meets] + (copy ^ flipped))
    nodes, ends = np.unique(np.concatenate([*rows, *columns]), return_inverse=True)
    edges = np.ones(ends.size // 2, bool), tuple(ends.reshape(2, -1))
    cover = sparse.coo_matrix(edges, shape=(nodes.size, nodes.size))
    component = connected_components(cover, directed=False)[1].reshape(-1, 4)
    winds = np.any(component[:, 1:] == component[:, :1], axis=1)
    cluster_winds = np.zeros(num_labels + 1, bool)
    cluster_winds[nodes.reshape(-1, 4)[winds, 0] // 4] = True
    # A cluster that winds touches the seam it crosses.
    at_seams = np.concatenate([labels[:, :, 0], labels[:, 0]], axis=1)
    return np.any(cluster_winds[at_seams], axis=1)
