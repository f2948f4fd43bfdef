"""Which blocks are copied or dropped: the stretches and squeezes of the elastic study, by rule.

In: numbers of normal blocks of a source and a target stage. Out: a `BlockMap`.
"""

from collections.abc import Mapping, Sequence
from operator import index
from typing import Literal, NamedTuple

from imp_rg.config import require, require_choice
from imp_rg.tickets.block_maps import BlockMap

Order = Literal["appending", "interpolation"]
"""Where copies go: after the last member of the group that is copied, or each after its source."""


def appending(num_source: int, num_target: int) -> BlockMap:
    """Copies whole groups of blocks, each group inserted after its last member.

    Every block stands floor(t / s) times, the first t mod s once more: 2 to 4 is B1 B2 B1 B2, and
    4 to 6 is B1 B2 B1 B2 B3 B4.

    Args:
      num_source: Normal blocks s of a source stage.
      num_target: Normal blocks t of a target stage, at least s.

    Raises:
      ValueError: If s is not positive or t is smaller.

    References:
      Chen et al., arXiv:2103.16547, Sec. 3.1; the numbers of copies are a house definition, the
      study prints no maps.
    """
    return _stretch(num_source, num_target, tuple(range(1, num_source + 1)), "appending")


def interpolation(num_source: int, num_target: int) -> BlockMap:
    """As `appending`, but each copy directly follows its source: B1 B1 B2 B2.

    Args:
      num_source: Normal blocks s of a source stage.
      num_target: Normal blocks t of a target stage, at least s.

    Raises:
      ValueError: If s is not positive or t is smaller.

    References:
      Chen et al., arXiv:2103.16547, Sec. 3.1.
    """
    return _stretch(num_source, num_target, tuple(range(1, num_source + 1)), "interpolation")


def stretch_unique(
    num_source: int, num_target: int, unique: Sequence[int], *, order: Order = "appending"
) -> BlockMap:
    """Copies chosen blocks only, equally often; where that leaves a remainder, the first more.

    Args:
      num_source: Normal blocks of a source stage.
      num_target: Normal blocks of a target stage.
      unique: The distinct source blocks that get copies, from 1; at most as many as blocks are
        added.
      order: ``appending`` or ``interpolation``.

    Raises:
      ValueError: If a number is out of range, or a block unknown or named twice.

    References:
      "Unique blocks replicated" of Chen et al., arXiv:2103.16547, Sec. 4.1.
    """
    require_choice("order", order, Order)
    chosen = _check_blocks("unique", unique, num_source)
    rule = f"must be 1 to {num_target - num_source} blocks, as many as are added at most"
    require(1 <= len(chosen) <= num_target - num_source, "unique", rule, chosen)
    return _stretch(num_source, num_target, chosen, order)


def squeeze(num_source: int, drop: Sequence[int]) -> BlockMap:
    """Leaves blocks out and closes the gaps.

    Args:
      num_source: Normal blocks of a source stage.
      drop: Source blocks to leave out, from 1; not all of them.

    Raises:
      ValueError: If a block is unknown or named twice, or none would be left.

    References:
      Chen et al., arXiv:2103.16547, Sec. 3.1.
    """
    dropped = _check_blocks("drop", drop, num_source)
    require(len(dropped) < num_source, "drop", "must leave at least one normal block", dropped)
    return BlockMap(tuple(b for b in range(num_source + 1) if b not in dropped))


def default_map(num_source: int, num_target: int) -> BlockMap:
    """Stretches by `appending`, or drops the last blocks.

    Args:
      num_source: Normal blocks of a source stage.
      num_target: Normal blocks of a target stage.

    Raises:
      ValueError: If a number is not positive.

    References:
      House definition, after the results of Chen et al., arXiv:2103.16547, Sec. 4.
    """
    if num_target >= num_source:
        return appending(num_source, num_target)
    return squeeze(num_source, range(num_target + 1, num_source + 1))


def _check_blocks(name: str, blocks: Sequence[int], num_source: int) -> tuple[int, ...]:
    """Distinct normal blocks, in rising order."""
    chosen = tuple(sorted(map(index, blocks)))
    rule = f"must be distinct normal blocks of 1 to {num_source}"
    is_known = all(1 <= b <= num_source for b in chosen)
    require(is_known and len(set(chosen)) == len(chosen), name, rule, tuple(blocks))
    return chosen


def _stretch(num_source: int, num_target: int, chosen: tuple[int, ...], order: Order) -> BlockMap:
    """Hands out the added blocks to the chosen ones in turn, then puts them in order."""
    require(num_source >= 1, "num_source", "must be at least one normal block", num_source)
    rule = f"must be at least num_source = {num_source}; squeeze takes blocks away"
    require(num_target >= num_source, "num_target", rule, num_target)
    num_added = num_target - num_source
    rounds = [chosen[: num_added - done] for done in range(0, num_added, len(chosen))]
    sequence: list[int] = []
    for block in range(1, num_source + 1):
        sequence.append(block)
        if order == "interpolation":
            sequence += [block] * sum(block in group for group in rounds)
        else:
            for group in rounds:
                sequence += group if group[-1] == block else ()
    return BlockMap((0, *sequence))


class NamedMap(NamedTuple):
    """A map between two of the depths 14, 20, 32, 44, 56.

    Attributes:
      source_depth: Of the source network.
      target_depth: Of the target network.
      block_map: One map that serves all stages.
      is_counter_example: Whether the paper expects it to do worse than the default map.
    """

    source_depth: int
    target_depth: int
    block_map: BlockMap
    is_counter_example: bool


NAMED_MAPS: Mapping[str, NamedMap] = {
    "drop-last-four": NamedMap(56, 32, squeeze(8, (5, 6, 7, 8)), False),
    "drop-every-other": NamedMap(56, 32, squeeze(8, (2, 4, 6, 8)), False),
    "drop-first-four": NamedMap(56, 32, squeeze(8, (1, 2, 3, 4)), True),
    "copy-first-two": NamedMap(32, 44, stretch_unique(4, 6, (1, 2)), False),
    "copy-last-two": NamedMap(32, 44, stretch_unique(4, 6, (3, 4)), True),
    "copy-all-four": NamedMap(32, 56, stretch_unique(4, 8, (1, 2, 3, 4)), False),
    "copy-first-two-twice": NamedMap(32, 56, stretch_unique(4, 8, (1, 2)), True),
    "copy-first-four-times": NamedMap(32, 56, stretch_unique(4, 8, (1,)), True),
}
"""Maps that Redman et al., Sec. 5.3, argue about, and those they are set against.

Chen et al., arXiv:2103.16547, Sec. 4.1: four unique blocks >= two >> one; earlier blocks are better
copied than later ones; dropping the first four is clearly worse than dropping others.
"""
