"""Universality classes: a tree of runs, cut only where a test allows it.

In: distances and which pairs are told apart. Out: the tree in scipy's format, and class numbers.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform


def average_tree(distance: Float[np.ndarray, "run run"]) -> Float[np.ndarray, "merge 4"]:
    """Average linkage in scipy's format; NaN if a distance is not finite.

    References:
      Sokal and Michener, Univ. Kansas Sci. Bull. 38 (1958).
    """
    if not np.isfinite(distance).all():
        return np.full((len(distance) - 1, 4), np.nan)
    return linkage(squareform(distance), method="average")


def cut_classes(
    tree: Float[np.ndarray, "merge 4"],
    is_different: Bool[np.ndarray, "run run"],
    is_decided: Bool[np.ndarray, " run"],
) -> Int[np.ndarray, " run"]:
    """Cuts a tree so that no class holds two runs that are told apart.

    Merges are made from the closest on; one that would join two different runs is refused, and so
    are all above it.

    Args:
      tree: Of `average_tree`.
      is_different: Whether two runs are told apart.
      is_decided: Whether anything is known about a run at all.

    Returns:
      Class numbers from 1 on, in order of first appearance; 0 for a run about which nothing is
      decided, and for all without a tree.

    References:
      House definition.
    """
    num_runs = len(is_decided)
    if np.isnan(tree).any():
        return np.zeros(num_runs, int)
    clusters: dict[int, list[int]] = {run: [run] for run in range(num_runs)}
    label = np.arange(num_runs)
    for node, (left, right) in enumerate(tree[:, :2].astype(int), start=num_runs):
        members = [*clusters[left], *clusters[right]]
        is_whole = clusters[left] and clusters[right]
        if is_whole and not is_different[np.ix_(members, members)].any():
            clusters[node] = members
            label[members] = min(members)
        else:
            clusters[node] = []
    numbers = {old: i for i, old in enumerate(dict.fromkeys(label[is_decided].tolist()), start=1)}
    return np.array([numbers[int(label[run])] if is_decided[run] else 0 for run in range(num_runs)])
