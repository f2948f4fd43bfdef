"""Are the seeds of two runs exchangeable? Permutation tests, and Holm's correction over many.

In: one row per seed, whatever was measured as columns. Out: a p-value with the smallest one that so
few seeds could have given, without which a large p-value says nothing.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class PermutationTest(NamedTuple):
    """Result of `permutation_test`.

    Attributes:
      p_value: Fraction of the relabellings, the actual one included, that part the two groups at
        least as far as they are.
      p_smallest: The smallest value that `p_value` could have taken.
      is_exact: Whether all relabellings were tried.
    """

    p_value: float
    p_smallest: float
    is_exact: bool


def permutation_test(
    a: Float[np.ndarray, "seed feature"],
    b: Float[np.ndarray, "other_seed feature"],
    *,
    num_permutations: int = 20_000,
    seed: int = 0,
) -> PermutationTest:
    """Tests whether two groups of seeds come from one distribution.

    Statistic: root mean square over features of the difference of the group means, each feature
    divided by its standard deviation over all seeds of both groups. That scale does not depend on
    the labels, and a feature that is the same in all seeds drops out.

    Args:
      a: Finite values of the first group.
      b: Finite values of the second group.
      num_permutations: If there are no more relabellings than this, all are tried, and the test is
        exact; otherwise so many are drawn, and the actual labels added.
      seed: Of the draws.

    Returns:
      A `PermutationTest`; NaN if a group is empty or there is no feature.

    References:
      Fisher, "The Design of Experiments" (1935); Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9
      (2010), for counting the actual labels.
    """
    if 0 in (*a.shape, *b.shape):
        return PermutationTest(math.nan, math.nan, False)
    pooled = np.concatenate([a, b])
    scale = pooled.std(axis=0)
    varies = scale > 1e-12 * np.abs(pooled).max(axis=0)
    scaled = (pooled - pooled.mean(axis=0))[:, varies] / scale[varies]
    labels, is_exact = _labels(len(a), len(b), num_permutations, seed)
    # Means over both groups are zero, so the mean of the first group fixes the difference.
    distance = np.sum((labels @ scaled) ** 2, axis=1)
    count = np.sum(distance >= distance[0] * (1 - 1e-9))
    return PermutationTest(
        p_value=float(count / len(labels)),
        p_smallest=smallest_p(len(a), len(b)) if is_exact else 1 / len(labels),
        is_exact=is_exact,
    )


def smallest_p(num_a: int, num_b: int) -> float:
    """Smallest p-value of the exact test: groups of one size can swap names at no cost.

    References:
      House definition. 3 against 3 give 2/20 = 0.10, 4 against 4 give 2/70, 5 against 5 2/252.
    """
    return (1 + (num_a == num_b)) / math.comb(num_a + num_b, num_a)


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Holm's step-down correction; a NaN is no test and stays NaN.

    References:
      Holm, Scand. J. Stat. 6 (1979).
    """
    p_values = np.asarray(p_values, float)
    adjusted = np.full(p_values.shape, np.nan)
    order = np.argsort(p_values)[: np.sum(~np.isnan(p_values))]  # NaN sorts last
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def _labels(
    num_a: int, num_b: int, num_permutations: int, seed: int
) -> tuple[Bool[np.ndarray, "permutation seed"], bool]:
    """Which seeds form the first group, the actual ones first, and whether that is all ways."""
    num = num_a + num_b
    num_ways = math.comb(num, num_a)
    if num_ways <= num_permutations:
        members = np.array(list(combinations(range(num), num_a)))  # the actual group comes first
        labels = np.zeros((num_ways, num), bool)
        np.put_along_axis(labels, members, True, axis=1)
        return labels, True
    order = np.random.default_rng(seed).random((num_permutations, num)).argsort(axis=1)
    return np.concatenate([np.arange(num)[None] < num_a, order < num_a]), False
