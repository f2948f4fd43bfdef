"""Block maps: which residual block of a source stage stands where in a target stage.

Blocks of a stage are numbered as in leaf paths: 0 is the first one, which may change the shape and
always maps to itself; the *normal* blocks 1 to s (B1 ... Bs in the Elastic Lottery Ticket study)
are dropped, kept or copied. In: a map as data or text. Out: a complete map, checked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index

import numpy as np
from jaxtyping import Float

from imp_rg.config import require

_TEXT = re.compile(r"\d{1,4}:\d{1,4}(,\d{1,4})*(;\d{1,4}:\d{1,4}(,\d{1,4})*)*", re.ASCII)


@dataclass(frozen=True)
class BlockMap:
    """A map of the blocks of one stage, complete by construction; hashable.

    Attributes:
      source_of: The source block of each target block, block 0 included: (0, 1, 2, 1, 2) is
        B1 B2 B1 B2.

    Raises:
      ValueError: If block 0 does not map to itself alone, or no normal block is left.

    References:
      Chen et al., "The Elastic Lottery Ticket Hypothesis", arXiv:2103.16547, Sec. 3.
    """

    source_of: tuple[int, ...]

    def __post_init__(self):
        sources = self.source_of
        require(all(s >= 0 for s in sources), "block_map", "blocks must not be negative", sources)
        is_fixed = sources[:1] == (0,) and 0 not in sources[1:]
        require(is_fixed, "block_map", "block 0 must map to block 0 and nowhere else", sources)
        require(len(sources) > 1, "block_map", "must leave at least one normal block", sources)

    @classmethod
    def from_targets(cls, targets: Mapping[int, Sequence[int]]) -> "BlockMap":
        """Builds a map from ``source block -> target blocks``; a source left out is dropped.

        Raises:
          ValueError: If a target block is named twice or never; all that lack a source are named.
        """
        source_of: dict[int, int] = {}
        for source, blocks in targets.items():
            for block in map(index, blocks):
                require(block >= 0, "block_map", "blocks must not be negative", block)
                rule = f"target block {block} must have one source"
                require(block not in source_of, "block_map", rule, (source_of.get(block), source))
                source_of[block] = index(source)
        missing = sorted(set(range(max(source_of, default=0))) - set(source_of))
        rule = f"every target block must have a source, {missing} have none"
        require(not missing, "block_map", rule, format_targets(targets))
        return cls(tuple(source_of[block] for block in sorted(source_of)))

    @property
    def targets(self) -> dict[int, tuple[int, ...]]:
        """Target blocks of each source block that has any; the first is the original."""
        found: dict[int, tuple[int, ...]] = {}
        for block, source in enumerate(self.source_of):
            found[source] = (*found.get(source, ()), block)
        return dict(sorted(found.items()))

    @property
    def copies(self) -> tuple[int, ...]:
        """Target blocks whose source already stands further up."""
        return tuple(sorted(block for blocks in self.targets.values() for block in blocks[1:]))

    @property
    def num_target(self) -> int:
        """Normal blocks of the target."""
        return len(self.source_of) - 1

    @property
    def notation(self) -> str:
        """The target in the notation of the study: ``B1 B2 B1 B2``."""
        return " ".join(f"B{source}" for source in self.source_of[1:])

    def __str__(self) -> str:
        return format_targets(self.targets)


def format_targets(targets: Mapping[int, Sequence[int]]) -> str:
    """Text such as ``0:0;1:1,3;2:2,4``, as the code of the study writes maps."""
    return ";".join(f"{source}:{','.join(map(str, blocks))}" for source, blocks in targets.items())


def parse_block_map(text: str) -> BlockMap:
    """Inverse of `str` of a map.

    Args:
      text: ``SOURCE:TARGET[,TARGET];...``, block 0 included.

    Raises:
      ValueError: If the text has another form, a source stands twice, or the map is not complete.

    References:
      The form is that of the code of Chen et al., arXiv:2103.16547.
    """
    rule = "must be SOURCE:TARGET[,TARGET];..."
    require(_TEXT.fullmatch(text) is not None, "block_map", rule, text)
    entries = [entry.split(":") for entry in text.split(";")]
    targets = {int(source): tuple(map(int, blocks.split(","))) for source, blocks in entries}
    require(len(targets) == len(entries), "block_map", "must name each source once", text)
    return BlockMap.from_targets(targets)


def sigma_mismatch(
    sigma_source: Float[np.ndarray, "*axes source_block"],
    sigma_target: Float[np.ndarray, "*axes target_block"],
    block_map: BlockMap,
) -> Float[np.ndarray, "*axes"]:
    """How far the exponents that a transformed ticket brings lie from the target's own.

    Root mean square over target blocks i of sigma_target[i] - sigma_source[source of i].

    Args:
      sigma_source: Exponents of the source's normal blocks B1, B2, ... on the last axis; axes
        before it (seeds, stages) are kept.
      sigma_target: Exponents of the target's own ticket.
      block_map: Of the transformation.

    Returns:
      The mismatch, in units of sigma; NaN where a used exponent is.

    Raises:
      ValueError: If the map does not fit the numbers of blocks.

    References:
      House definition, of the mismatch that Redman et al., arXiv:2110.03210, Sec. 5.3, hold
      responsible for failed transfer.
    """
    brought, own = np.asarray(sigma_source), np.asarray(sigma_target)
    check_fits(block_map, brought.shape[-1], own.shape[-1], "sigma")
    brought = brought[..., np.array(block_map.source_of[1:]) - 1]
    return np.sqrt(np.mean((own - brought) ** 2, axis=-1))


def check_fits(block_map: BlockMap, num_source: int, num_target: int, stage: str) -> None:
    """Raises `ValueError` unless a map names only blocks that are there and covers the target.

    Args:
      block_map: Any map.
      num_source: Normal blocks of the source.
      num_target: Normal blocks of the target.
      stage: What to call them.
    """
    unknown = sorted({s for s in block_map.source_of if s > num_source})
    rule = f"source blocks of {stage} are 0 to {num_source}, {unknown} are unknown"
    require(not unknown, "block_map", rule, str(block_map))
    beyond = list(range(num_target + 1, block_map.num_target + 1))
    rule = f"target blocks of {stage} are 0 to {num_target}, {beyond} are unknown"
    require(not beyond, "block_map", rule, str(block_map))
    uncovered = list(range(block_map.num_target + 1, num_target + 1))
    rule = f"target blocks of {stage} must all have a source, {uncovered} have none"
    require(not uncovered, "block_map", rule, str(block_map))
