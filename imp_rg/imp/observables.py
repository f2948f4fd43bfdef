"""Cheap observables of one level, block by block, on host arrays.

In: weights and masks of one level, tensor by tensor, with what they are compared with. Out: one
value a block. Only one tensor (with its references) is held at a time, and sums are in float64.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from imp_rg.config import require

OBSERVABLES = {
    "sign_flip_share": "share of the survivors whose sign is opposite to the rewind weight's",
    "jaccard_previous": "survivors shared with the previous level, over those of either",
    "chance_previous": "what jaccard_previous would be for independent random masks",
    "jaccard_seed": "survivors shared with another seed, over those of either",
    "chance_seed": "what jaccard_seed would be for independent random masks",
    "kurtosis": "excess kurtosis (Fisher; 0 for a Gaussian) of the surviving weights",
    "mean_magnitude": "mean absolute surviving weight",
    "dead_unit_share": "share of the output units with no surviving incoming weight",
    "distance": "L2 distance of the survivors from their rewind weights",
    "relative_distance": "distance over the L2 norm of the survivors' rewind weights",
}
"""Names of all observables, in the order of reports, with their meaning."""

CHUNK = 2**13
"""Weights summed at a time: the float64 copies stay in the processor's cache, and inner products
are too short for BLAS to start threads that cost more than they sum."""

Lookup = Callable[[str], np.ndarray]
"""From the name of a tensor to its array; a dict `d` is passed as ``d.__getitem__``."""


class LevelWeights(NamedTuple):
    """Weights and masks of one level, read when asked for.

    Attributes:
      weight: From the name of a tensor to its weights, any float type.
      mask: From the name of a tensor to its bool mask; True keeps a weight.
    """

    weight: Lookup
    mask: Lookup


class Overlap(NamedTuple):
    """How much two masks agree.

    Attributes:
      jaccard: Weights kept by both, over weights kept by either, in [0, 1].
      chance: The same for masks of the same counts drawn at random within each tensor.
    """

    jaccard: float
    chance: float

    @property
    def above_chance(self) -> float:
        """Jaccard minus chance; 0 for unrelated masks."""
        return self.jaccard - self.chance


class OverlapCounts(NamedTuple):
    """Weights kept by both masks, by the first, by the second, and all weights of a tensor."""

    both: int
    first: int
    second: int
    size: int


class ChunkSums(NamedTuple):
    """Sums over the survivors of each chunk, [chunk]; what needs rewind weights is NaN without.

    Attributes:
      count: Number of survivors.
      mean: Their mean.
      moment2: Sum of squared deviations from the mean; likewise 3 and 4.
      moment3: Sum of cubes.
      moment4: Sum of fourth powers.
      magnitude: Sum of abs(theta).
      flips: Number of opposite signs.
      moved: Sum of squared differences from the rewind weights.
      rewind: Sum of squared rewind weights.
    """

    count: np.ndarray
    mean: np.ndarray
    moment2: np.ndarray
    moment3: np.ndarray
    moment4: np.ndarray
    magnitude: np.ndarray
    flips: np.ndarray
    moved: np.ndarray
    rewind: np.ndarray


class TensorSums(NamedTuple):
    """What a block needs to know of one of its tensors; chunks as rows of `ChunkSums`."""

    chunks: list[np.ndarray]
    units: int
    dead_units: int
    previous: OverlapCounts | None
    seed: OverlapCounts | None


def observe_level(
    names: Sequence[str],
    block_of: Sequence[int],
    num_blocks: int,
    current: LevelWeights,
    *,
    rewind: Lookup | None = None,
    previous: Lookup | None = None,
    other_seed: Lookup | None = None,
    unit_axis: int,
) -> dict[str, Float[np.ndarray, " block"]]:
    """Computes all `OBSERVABLES` of one level.

    Args:
      names: Tensors in tree order.
      block_of: Block of each tensor, -1 for one that is left out and never read.
      num_blocks: Number of blocks.
      current: Weights trained at this level and the masks they were trained under.
      rewind: Weights that the level started from.
      previous: Masks of the previous level.
      other_seed: Masks of the same level in another replicate.
      unit_axis: Axis of a tensor that counts output units: -1 for Flax kernels, 0 for PyTorch.

    Returns:
      For each observable its values, in the units of the weights or dimensionless; NaN where its
      reference is missing or the block keeps nothing (but all its units are dead then). Kurtosis is
      that of all survivors of a block taken together, not a mean over tensors.

    Raises:
      ValueError: If lengths, block indices, shapes or types do not fit.

    References:
      House definition. Sign flips and distance from the rewind point follow Zhou et al.,
      arXiv:1905.01067; for the overlap see `mask_overlap`.
    """
    _check_partition(names, block_of, num_blocks, unit_axis)
    tensors: list[list[TensorSums]] = [[] for _ in range(num_blocks)]
    for name, block in zip(names, block_of, strict=True):
        if block >= 0:
            sums = _sum_tensor(name, current, rewind, (previous, other_seed), unit_axis)
            tensors[block].append(sums)
    rows = [_observe_block(sums) for sums in tensors]
    return {name: np.array([row[name] for row in rows]) for name in OBSERVABLES}


def mask_overlap(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> Overlap:
    """Jaccard index of two sets of masks, and what chance gives.

    With tensors t of N_t weights, of which the masks keep A_t and B_t, random masks share A_t B_t /
    N_t of them on average (the hypergeometric mean). Chance is the ratio of expectations,

      sum_t A_t B_t / N_t  over  sum_t (A_t + B_t - A_t B_t / N_t),

    which is the expected ratio to a relative 2 / U, where U weights are kept by either mask. It
    knows the density of every tensor, so what is above it is agreement on which weights, not on how
    many.

    Args:
      a: Bool masks, one a tensor.
      b: Masks of the same tensors in the same order.

    Returns:
      The overlap; NaN if neither keeps anything.

    Raises:
      ValueError: If the masks differ in number or shape, or are not bool.

    References:
      Jaccard, New Phytologist 11 (1912); the chance level is a house definition.
    """
    counts = []
    for i, (x, y) in enumerate(zip_longest(a, b)):
        if x is None or y is None:
            raise ValueError(f"masks: must be as many in a as in b, one ends after {i}")
        _check_like(f"mask {i} of a", x, x.shape, bool)
        _check_like(f"mask {i} of b", y, x.shape, bool)
        counts.append(_count_overlap(x, y))
    return _overlap(counts)


def _sum_tensor(
    name: str,
    current: LevelWeights,
    rewind: Lookup | None,
    others: tuple[Lookup | None, Lookup | None],
    unit_axis: int,
) -> TensorSums:
    """Reads a tensor with its references, and lets go of them."""
    weight, mask = current.weight(name), current.mask(name)
    _check_like(f"mask of {name}", mask, weight.shape, bool)
    start = None
    if rewind is not None:
        start = rewind(name)
        _check_like(f"rewind weight of {name}", start, weight.shape)
    overlaps = []
    for other in others:
        other = None if other is None else other(name)
        if other is not None:
            _check_like(f"other mask of {name}", other, weight.shape, bool)
        overlaps.append(None if other is None else _count_overlap(mask, other))
    return TensorSums(_sum_chunks(weight, mask, start), *_count_units(mask, unit_axis), *overlaps)


def _observe_block(tensors: list[TensorSums]) -> dict[str, float]:
    """The observables of a block from the sums of its tensors."""
    rows = np.array([chunk for t in tensors for chunk in t.chunks])
    sums = ChunkSums(*rows.reshape(-1, len(ChunkSums._fields)).T)
    count = sums.count.sum()
    moved = sums.moved.sum() if count else np.nan
    previous = _overlap([t.previous for t in tensors])
    seed = _overlap([t.seed for t in tensors])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sign_flip_share": sums.flips.sum() / count,
            "jaccard_previous": previous.jaccard,
            "chance_previous": previous.chance,
            "jaccard_seed": seed.jaccard,
            "chance_seed": seed.chance,
            "kurtosis": _kurtosis(sums),
            "mean_magnitude": sums.magnitude.sum() / count,
            "dead_unit_share": np.divide(
                sum(t.dead_units for t in tensors), sum(t.units for t in tensors)
            ),
            "distance": np.sqrt(moved),
            "relative_distance": np.sqrt(moved / sums.rewind.sum()),
        }


def _kurtosis(sums: ChunkSums) -> float:
    """Excess kurtosis of all chunks together, from moments about the mean of each."""
    count = sums.count.sum()
    shift = sums.mean - (sums.count * sums.mean).sum() / count
    moment2 = (sums.moment2 + sums.count * shift**2).sum() / count
    moment4 = (
        sums.moment4
        + 4 * shift * sums.moment3
        + 6 * shift**2 * sums.moment2
        + sums.count * shift**4
    ).sum() / count
    return moment4 / moment2**2 - 3


def _sum_chunks(
    weight: np.ndarray, mask: np.ndarray, rewind: np.ndarray | None
) -> list[np.ndarray]:
    """Sums over the survivors of a tensor, `CHUNK` weights at a time."""
    flat = [array.ravel() for array in (weight, rewind) if array is not None]
    chunks = []
    for first in range(0, weight.size, CHUNK):
        part = slice(first, first + CHUNK)
        kept = mask.ravel()[part]
        survivors = [array[part][kept].astype(np.float64) for array in flat]
        if survivors[0].size:
            chunks.append(_sum_chunk(*survivors))
    return chunks


def _sum_chunk(x: np.ndarray, rewind: np.ndarray | None = None) -> np.ndarray:
    """One value for each field of `ChunkSums`."""
    mean = x.mean()
    deviation = x - mean
    squares = deviation * deviation
    moments = squares.sum(), squares @ deviation, squares @ squares
    if rewind is None:
        compared = (np.nan,) * 3
    else:
        moved = x - rewind
        compared = np.count_nonzero(x * rewind < 0), moved @ moved, rewind @ rewind
    return np.array([x.size, mean, *moments, np.abs(x).sum(), *compared])


def _count_units(mask: np.ndarray, unit_axis: int) -> tuple[int, int]:
    """Number of output units of a tensor, and of those that keep no weight."""
    mask = np.atleast_1d(mask)
    units = mask.shape[unit_axis]
    rows = mask.reshape((units, -1) if unit_axis == 0 else (-1, units))
    return units, units - int(np.count_nonzero(rows.any(axis=1 if unit_axis == 0 else 0)))


def _count_overlap(a: np.ndarray, b: np.ndarray) -> OverlapCounts:
    both, first, second = (int(np.count_nonzero(m)) for m in (a & b, a, b))
    return OverlapCounts(both=both, first=first, second=second, size=a.size)


def _overlap(counts: Sequence[OverlapCounts | None]) -> Overlap:
    """Overlap of several tensors together; NaN without any, or where a reference is missing."""
    known = [c for c in counts if c is not None]
    both, first, second, size = np.array(known, float).reshape(-1, 4).T
    expected = first * second / np.maximum(size, 1)
    with np.errstate(invalid="ignore"):
        return Overlap(
            jaccard=float(np.divide(both.sum(), (first + second - both).sum())),
            chance=float(np.divide(expected.sum(), (first + second - expected).sum())),
        )


def _check_partition(
    names: Sequence[str], block_of: Sequence[int], num_blocks: int, unit_axis: int
) -> None:
    require(num_blocks >= 1, "num_blocks", "must be at least 1", num_blocks)
    require(unit_axis in (0, -1), "unit_axis", "must be 0 (PyTorch) or -1 (Flax)", unit_axis)
    rule = f"must give one block for each of the {len(names)} names"
    require(len(block_of) == len(names), "block_of", rule, len(block_of))
    highest = max(block_of, default=-1)
    require(highest < num_blocks, "block_of", f"must lie below num_blocks = {num_blocks}", highest)


def _check_like(
    name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type | None = None
) -> None:
    """Raises `ValueError` unless the array has the shape, and the type if one is given."""
    if array.shape != shape or dtype not in (None, array.dtype):
        kind = "" if dtype is None else f"{dtype.__name__} "
        raise ValueError(f"{name}: must be {kind}of shape {shape}, got {array.dtype} {array.shape}")
