"""A run of other code on disk: its files by seed and level, its tensors divided into blocks.

In: a path. Out: a `ForeignRun`, which opens levels one by one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imp_rg.blocks import BlockPartition, parse_blocks
from imp_rg.foreign.block_rules import BlockRules, choose_rules, make_network_partition
from imp_rg.foreign.layout import LevelFiles, RunLayout, find_levels
from imp_rg.foreign.measure_levels import PrunedLevel
from imp_rg.foreign.network import Network, open_network
from imp_rg.foreign.tensors import open_tensors


class ForeignRun(NamedTuple):
    """A run on disk, with its tensors divided into blocks; nothing of it is in memory.

    Attributes:
      path: Where it lies.
      layout: Files by seed and level.
      shapes: Of all tensors by canonical name.
      rules: Which tensors form blocks and which are prunable.
      blocks: Partition by those rules, for the sorted names.
      other_parts: Further networks in the files, such as averaged weights, which are not read.
    """

    path: Path
    layout: RunLayout
    shapes: dict[str, tuple[int, ...]]
    rules: BlockRules
    blocks: BlockPartition
    other_parts: tuple[str, ...]

    @property
    def is_single(self) -> bool:
        """Whether there is one checkpoint only."""
        return len(self.layout.levels[0]) == 1

    @property
    def seed_names(self) -> tuple[Any, ...]:
        """Seeds as they stand in tables: numbers where they are."""
        return tuple(int(seed) if seed.isdecimal() else seed for seed in self.layout.seeds)

    @property
    def names(self) -> list[str]:
        """Names in the order of the partition's leaves."""
        return sorted(self.shapes)

    @property
    def prunable(self) -> list[str]:
        """Names of the prunable tensors."""
        return [name for name, i in zip(self.names, self.blocks.block_of, strict=True) if i >= 0]

    @property
    def sizes(self) -> np.ndarray:
        """Number of weights of each tensor."""
        return np.array([int(np.prod(self.shapes[name])) for name in self.names])

    def open_level(self, seed: int, level: int) -> PrunedLevel:
        """One level of one seed."""
        files = self.layout.levels[seed][level]
        return PrunedLevel(_open(files), f"{files.weights}")

    def open_rewind(self, seed: int) -> PrunedLevel | None:
        """Weights of the rewind point, if the run has them."""
        path = self.layout.rewind[seed]
        return None if path is None else PrunedLevel(_open(LevelFiles(path, None)), f"{path}")

    def masks_of(self, seed: int, level: int) -> Callable[[str], np.ndarray]:
        """From the name of a tensor to its mask at one level."""
        opened = self.open_level(seed, level)
        return lambda name: opened.mask(name, opened.weight(name))

    def read_masks(self, seed: int, level: int) -> Mapping[str, np.ndarray]:
        """Masks of the prunable tensors."""
        mask = self.masks_of(seed, level)
        return {name: mask(name) for name in self.prunable}


def _open(files: LevelFiles) -> Network:
    masks = None if files.masks is None else open_tensors(files.masks)
    return open_network(open_tensors(files.weights), masks)


def open_run(path: Path, *, blocks: str | Path = "auto") -> ForeignRun:
    """Finds the levels of a run and divides its tensors into blocks.

    Args:
      path: A checkpoint, a folder of them, or a folder of level folders.
      blocks: A preset, patterns, or a TOML file; ``auto`` decides by the names of the tensors.

    Returns:
      The run.

    Raises:
      ValueError: If nothing readable is found, levels are missing, or a pattern matches nothing.
    """
    layout = find_levels(path)
    first, last = _open(layout.levels[0][0]), _open(layout.levels[0][-1])
    masked = first.masked_names | last.masked_names  # the dense level is often saved without masks
    chosen = parse_blocks(blocks) if isinstance(blocks, str) else blocks
    rules = choose_rules(first.shapes, chosen, masked=masked)
    partition = make_network_partition(first.shapes, rules)
    return ForeignRun(path, layout, dict(first.shapes), rules, partition, first.other_parts)
