"""Cheap observables of one level, block by block, on host arrays.

In: weights and masks of one level, tensor by tensor, with what they are compared with. Out: one
value a block. Only one tensor (with its references) is held at a time, and sums are in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from imp_rg.config import require
from imp_rg.imp.overlap import OverlapCounts, check_like, combine_overlaps, count_overlap

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


class ChunkSums(NamedTuple):
    """Sums over the survivors of each chunk, [chunk]; what needs rewind weights is NaN without.

    Attributes:
      count: Number of survivors.
      mean: Their mean.
      moment2: Sum of squared deviations from the mean.
      moment3: Sum of their cubes.
      moment4: Sum of their fourth powers.
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
      arXiv:1905.01067; for the overlap see `imp_rg.imp.overlap.mask_overlap`.
    """
    _check_partition(names, block_of, num_blocks, unit_axis)
    tensors: list[list[TensorSums]] = [[] for _ in range(num_blocks)]
    for name, block in zip(names, block_of, strict=True):
        if block >= 0:
            sums = _sum_tensor(name, current, rewind, (previous, other_seed), unit_axis)
            tensors[block].append(sums)
    rows = [_observe_block(sums) for sums in tensors]
    return {name: np.array([row[name] for row in rows]) for name in OBSERVABLES}


def _sum_tensor(
    name: str,
    current: LevelWeights,
    rewind: Lookup | None,
    others: tuple[Lookup | None, Lookup | None],
    unit_axis: int,
) -> TensorSums:
    """Reads a tensor with its references, and lets go of them."""
    weight, mask = current.weight(name), current.mask(name)
    check_like(f"mask of {name}", mask, weight.shape, bool)
    start = None
    if rewind is not None:
        start = rewind(name)
        check_like(f"rewind weight of {name}", start, weight.shape)
    overlaps = []
    for other in others:
        other = None if other is None else other(name)
        if other is not None:
            check_like(f"other mask of {name}", other, weight.shape, bool)
        overlaps.append(None if other is None else count_overlap(mask, other))
    return TensorSums(_sum_chunks(weight, mask, start), *_count_units(mask, unit_axis), *overlaps)


def _observe_block(tensors: list[TensorSums]) -> dict[str, float]:
    """The observables of a block from the sums of its tensors."""
    rows = np.array([chunk for t in tensors for chunk in t.chunks])
    sums = ChunkSums(*rows.reshape(-1, len(ChunkSums._fields)).T)
    count = sums.count.sum()
    moved = sums.moved.sum() if count else np.nan
    previous = combine_overlaps([t.previous for t in tensors])
    seed = combine_overlaps([t.seed for t in tensors])
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


def _check_partition(
    names: Sequence[str], block_of: Sequence[int], num_blocks: int, unit_axis: int
) -> None:
    require(num_blocks >= 1, "num_blocks", "must be at least 1", num_blocks)
    require(unit_axis in (0, -1), "unit_axis", "must be 0 (PyTorch) or -1 (Flax)", unit_axis)
    rule = f"must give one block for each of the {len(names)} names"
    require(len(block_of) == len(names), "block_of", rule, len(block_of))
    highest = max(block_of, default=-1)
    require(highest < num_blocks, "block_of", f"must lie below num_blocks = {num_blocks}", highest)


def observable_rows(
    seed: Any,
    level: int,
    blocks: Sequence[str],
    values: Mapping[str, Float[np.ndarray, " block"]],
) -> list[dict[str, Any]]:
    """Rows of ``observables.csv`` for one level; values without a reference are left out."""
    return [
        {"seed": seed, "level": level, "block": block, "observable": name, "value": value}
        for name, per_block in values.items()
        for block, value in zip(blocks, per_block, strict=True)
        if not np.isnan(value)
    ]
