"""Which leaves form block i, which can be pruned, and what the shares are shares of.

A `BlockPartition` is static: names and, for each leaf in tree order, the index of its block, or -1
where the leaf is not prunable. Prunable leaves outside every listed block form the block ``rest``,
so the shares of all blocks sum to one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import jax
import numpy as np

from imp_rg.pytree import leaf_paths, matches
from imp_rg.types import Params

REST = "rest"


@dataclass(frozen=True, kw_only=True)
class BlockPartition:
    """A partition of the prunable leaves; hashable, so it can be a static argument.

    Attributes:
      names: Block names in order of depth; ``rest`` comes last and only if it holds a leaf.
      block_of: For each leaf in tree order its block, -1 where it is not prunable.
      sizes: Number of weights in each block.
    """

    names: tuple[str, ...]
    block_of: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def num_listed(self) -> int:
        """Number of blocks other than ``rest``."""
        return len(self.names) - (REST in self.names)

    @property
    def prunable(self) -> tuple[bool, ...]:
        """For each leaf in tree order, whether it can be pruned."""
        return tuple(i >= 0 for i in self.block_of)

    def leaves_of(self, block: int) -> tuple[int, ...]:
        """Positions, in tree order, of the leaves of one block."""
        return tuple(k for k, i in enumerate(self.block_of) if i == block)


def make_partition(
    params: Params, patterns: Mapping[str, Sequence[str]], *, prunable: Sequence[str]
) -> BlockPartition:
    """Builds a partition from patterns of leaf paths.

    Args:
      params: Any tree of the network (arrays or shapes).
      patterns: Block name to patterns of `imp_rg.pytree.matches`; order is kept.
      prunable: Patterns of the leaves that can be pruned; others are in no block.

    Returns:
      The partition.

    Raises:
      ValueError: If a pattern matches no prunable leaf, or two blocks claim one leaf.

    References:
      House definition; the blocks of Redman et al., Sec. 5, are residual blocks or stages.
    """
    paths = leaf_paths(params)
    sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)]
    is_prunable = [matches(path, prunable) for path in paths]
    candidates = [path for path, can in zip(paths, is_prunable, strict=True) if can]
    for name, block_patterns in patterns.items():
        _check_patterns(name, block_patterns, candidates)

    names = tuple(patterns)
    block_of = []
    for path, can in zip(paths, is_prunable, strict=True):
        owners = [i for i, name in enumerate(names) if can and matches(path, patterns[name])]
        if len(owners) > 1:
            both = " and ".join(names[i] for i in owners)
            raise ValueError(f"blocks: each tensor must lie in one block, {path} is in {both}")
        block_of.append(owners[0] if owners else (len(names) if can else -1))
    if len(names) in block_of:
        names = (*names, REST)
    totals = [0] * len(names)
    for size, i in zip(sizes, block_of, strict=True):
        if i >= 0:
            totals[i] += size
    return BlockPartition(names=names, block_of=tuple(block_of), sizes=tuple(totals))


def parse_blocks(text: str) -> str | dict[str, tuple[str, ...]]:
    """A partition's name, or ``NAME=PATTERN[+PATTERN],NAME=...`` as patterns.

    Raises:
      ValueError: If a name or pattern is empty, or a name stands twice.
    """
    if "=" not in text:
        return text
    patterns = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if not name or not value or name in patterns:
            raise ValueError(f"blocks: must be NAME=PATTERN[+PATTERN],NAME=..., got {text!r}")
        patterns[name] = tuple(value.split("+"))
    return patterns


def _check_patterns(name: str, patterns: Sequence[str], candidates: Sequence[str]) -> None:
    if name == REST:
        raise ValueError(f"blocks: the name {REST!r} is kept for prunable tensors in no block")
    for pattern in patterns:
        if not any(matches(path, (pattern,)) for path in candidates):
            near = get_close_matches(pattern, candidates, n=3, cutoff=0.3)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise ValueError(
                f"blocks: pattern {pattern!r} of block {name!r} matches no prunable tensor{hint}"
            )
