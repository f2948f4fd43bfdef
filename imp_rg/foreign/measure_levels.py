"""The flow of pruned networks on disk, one level and one tensor at a time.

In: the levels of one seed as `Network`s. Out: what each block holds at each point of each level,
summed in float64. Nothing of a network is kept but its masks, so size is limited by the disk.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint
from imp_rg.foreign.network import Network
from imp_rg.types import POINTS, Bool, Float, Int


class SeedFlow(NamedTuple):
    """The flow of one seed.

    Attributes:
      points: For each of `POINTS` the flow, fields [level block]; NaN where the point is missing.
      leaf_survivors: Weights kept of each tensor; of a tensor never pruned, all.
    """

    points: dict[str, FlowPoint]
    leaf_survivors: Int[np.ndarray, "level leaf"]


class PrunedLevel:
    """One level of one seed: its weights, and masks wherever they come from.

    Attributes:
      label: How errors name it.
    """

    def __init__(self, network: Network, label: str):
        """Wraps a network; nothing is read yet."""
        self.label = label
        self._network = network

    def weight(self, name: str) -> Float[np.ndarray, "..."]:
        """Weights of a tensor as stored.

        Raises:
          ValueError: If one of them is not finite.
        """
        weight = self._network.weight(name)
        if not np.isfinite(weight).all():
            raise ValueError(f"{self.label}: weights must be finite, {name} holds NaN or infinity")
        return weight

    def mask(self, name: str, weight: np.ndarray) -> Bool[np.ndarray, "..."]:
        """The explicit mask of a tensor; without one, its non-zero weights are those kept."""
        mask = self._network.mask(name)
        return weight != 0 if mask is None else mask

    def masked(self, name: str) -> Float[np.ndarray, "..."]:
        """Weights of a tensor, zero where pruned."""
        weight = self.weight(name)
        mask = self._network.mask(name)
        return weight if mask is None else np.where(mask, weight, weight.dtype.type(0))

    def check_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raises `ValueError` unless the level has the tensors of the first one."""
        own = self._network.shapes
        for name in shapes.keys() | own.keys():
            if own.get(name) != shapes.get(name):
                raise ValueError(
                    f"{self.label}: {name} must be {shapes.get(name, 'absent')} as in the first "
                    f"level, got {own.get(name, 'none')}"
                )


def measure_seed(
    open_levels: Sequence[Callable[[], PrunedLevel]],
    rewind: PrunedLevel | None,
    *,
    shapes: dict[str, tuple[int, ...]],
    blocks: BlockPartition,
    on_level: Callable[[int], None] = lambda level: None,
) -> SeedFlow:
    """Measures every level of one seed.

    Args:
      open_levels: One function a level, called when its turn comes.
      rewind: Weights of the rewind point; without them the point `rewound` is missing.
      shapes: Of every tensor, pruned or not.
      blocks: Partition of the tensors in order of their sorted names.
      on_level: Called after each level.

    Returns:
      The flow; its sums are float64.

    Raises:
      ValueError: In one line that names level and tensor, if tensors differ from those of the first
        level, weights are not finite, masks are not nested or keep nothing, or density rises.

    References:
      Redman et al., arXiv:2110.03210, Eq. 13; points as in `imp_rg.types.POINTS`.
    """
    names = sorted(shapes)
    sums = np.zeros((len(POINTS), len(open_levels), len(names)))
    survivors = np.zeros((len(open_levels), len(names)), np.int64)
    masks: dict[str, np.ndarray] = {}
    before: PrunedLevel | None = None
    for n, open_level in enumerate(open_levels):
        level = open_level()
        level.check_shapes(shapes)
        for k, name in enumerate(names):
            weight = level.weight(name)
            mask = np.ones((), bool)
            if blocks.prunable[k]:
                mask = _nested_mask(level, name, weight, masks.get(name))
                masks[name] = mask
            survivors[n, k] = weight.size if mask.ndim == 0 else np.count_nonzero(mask)
            sums[:, n, k] = [
                magnitude(weight, mask),
                np.nan if rewind is None else magnitude(rewind.weight(name), mask),
                np.nan if before is None else magnitude(before.weight(name), mask),
            ]
        _check_count(level, n, survivors[:, list(blocks.prunable)].sum(axis=1))
        before = level
        on_level(n)
    points = {p: _by_block(sums[i], survivors, blocks) for i, p in enumerate(POINTS)}
    return SeedFlow(points=points, leaf_survivors=survivors)


def magnitude(weight: np.ndarray, mask: np.ndarray | bool = True) -> float:
    """Sum of abs(m theta) in float64."""
    return float(np.abs(np.where(mask, weight, 0)).sum(dtype=np.float64))


def _nested_mask(
    level: PrunedLevel, name: str, weight: np.ndarray, before: np.ndarray | None
) -> np.ndarray:
    mask = level.mask(name, weight)
    if before is not None and (revived := np.count_nonzero(mask & ~before)):
        raise ValueError(
            f"{level.label}: masks must be nested, {revived} weights of {name} come back"
        )
    return mask


def _check_count(level: PrunedLevel, n: int, kept: np.ndarray) -> None:
    """Density must fall: between equal levels the scale factor is 1, and ln c divides sigma."""
    if kept[n] == 0:
        raise ValueError(f"{level.label}: must keep a prunable weight, keeps none")
    if n and kept[n] >= kept[n - 1]:
        raise ValueError(
            f"{level.label}: density must fall from level to level, "
            f"{kept[n - 1]:,} weights kept before and {kept[n]:,} now"
        )


def _by_block(sums: np.ndarray, survivors: np.ndarray, blocks: BlockPartition) -> FlowPoint:
    def per_block(values: np.ndarray) -> np.ndarray:
        indices = map(blocks.leaves_of, range(len(blocks.names)))
        return np.stack([values[:, list(ks)].sum(axis=1) for ks in indices], axis=1)

    return FlowPoint(
        magnitude=per_block(sums), surviving=per_block(survivors), total=sums.sum(axis=1)
    )
