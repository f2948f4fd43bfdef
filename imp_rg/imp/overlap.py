"""How much masks agree, beside what chance gives.

In: two sets of host masks, tensor by tensor. Out: a Jaccard index and its chance level.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np


class Overlap(NamedTuple):
    """How much two masks agree.

    Attributes:
      jaccard: Weights kept by both, over weights kept by either, in [0, 1].
      chance: Overlap of masks of the same counts drawn at random within each tensor.
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
        check_like(f"mask {i} of a", x, x.shape, bool)
        check_like(f"mask {i} of b", y, x.shape, bool)
        counts.append(count_overlap(x, y))
    return combine_overlaps(counts)


def count_overlap(a: np.ndarray, b: np.ndarray) -> OverlapCounts:
    """Counts of one tensor. House definition."""
    both, first, second = (int(np.count_nonzero(m)) for m in (a & b, a, b))
    return OverlapCounts(both=both, first=first, second=second, size=a.size)


def combine_overlaps(counts: Sequence[OverlapCounts | None]) -> Overlap:
    """Overlap of several tensors together; NaN without any, or where a reference is missing."""
    known = [c for c in counts if c is not None]
    both, first, second, size = np.array(known, float).reshape(-1, 4).T
    expected = first * second / np.maximum(size, 1)
    with np.errstate(invalid="ignore"):
        return Overlap(
            jaccard=float(np.divide(both.sum(), (first + second - both).sum())),
            chance=float(np.divide(expected.sum(), (first + second - expected).sum())),
        )


def check_like(
    name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type | None = None
) -> None:
    """Raises `ValueError` unless the array has the shape, and the type if one is given."""
    if array.shape != shape or dtype not in (None, array.dtype):
        kind = "" if dtype is None else f"{dtype.__name__} "
        raise ValueError(f"{name}: must be {kind}of shape {shape}, got {array.dtype} {array.shape}")
