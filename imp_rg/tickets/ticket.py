"""A ticket: which weights of a network survive, and the weights they are rewound to.

In: rewind variables and masks of one seed and level. Out: a checked pair, its densities, and the
network it stands for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from imp_rg.config import require
from imp_rg.pytree import apply_masks, check_same_structure, matches, to_flat
from imp_rg.types import Masks, Variables


class KeptCount(NamedTuple):
    """Weights of one or more tensors.

    Attributes:
      kept: How many survive.
      total: How many there are.
    """

    kept: int
    total: int


@dataclass(frozen=True, eq=False)
class Ticket:
    """Rewind variables under masks.

    Attributes:
      rewind: Variables at the rewind step; pruned weights may still hold their values.
      masks: Bool tree with the structure of ``rewind.params``; True keeps a weight.

    Raises:
      ValueError: If the masks have another structure, a leaf another shape, or are not bool.

    References:
      A ticket is (masks, rewind weights), Redman et al., arXiv:2110.03210, Sec. 2.1.
    """

    rewind: Variables
    masks: Masks

    def __post_init__(self):
        check_same_structure(self.rewind.params, self.masks)

    def masked(self) -> Variables:
        """The network that is trained: pruned weights are 0, statistics as at the rewind step."""
        return self.rewind._replace(params=apply_masks(self.rewind.params, self.masks))

    def kept_counts(self, prunable: Sequence[str]) -> dict[str, KeptCount]:
        """Surviving and all weights of each prunable tensor, by leaf path in tree order.

        Args:
          prunable: Patterns of `imp_rg.pytree.matches`, such as ``Model.prunable``.

        Raises:
          ValueError: If no tensor matches.
        """
        counts = {
            path: KeptCount(int(np.count_nonzero(mask)), mask.size)
            for path, mask in to_flat(self.masks).items()
            if matches(path, prunable)
        }
        require(bool(counts), "prunable", "must match a tensor of the ticket", tuple(prunable))
        return counts

    def density(self, prunable: Sequence[str]) -> float:
        """Kept fraction of all prunable weights; arguments as for `kept_counts`."""
        return density_of(self.kept_counts(prunable).values())

    def per_tensor_density(self, prunable: Sequence[str]) -> dict[str, float]:
        """Kept fraction of each prunable tensor; arguments as for `kept_counts`."""
        return {path: density_of([count]) for path, count in self.kept_counts(prunable).items()}


def density_of(counts: Iterable[KeptCount]) -> float:
    """Kept fraction of tensors taken together. House definition."""
    kept, total = np.sum([*counts], axis=0)
    return float(kept / total)
