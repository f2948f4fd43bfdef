"""Which block of one run stands beside which block of another.

In: the block names of two runs. Out: a `BlockMatch`, which brings values of both to common places.
Equal names are compared block by block. Otherwise a block's place is its relative depth inside its
stage, the part of its name before the last slash: 0 for the first block of the stage, 1 for the
last, 1/2 for an only one. Names without a slash form one stage. Each stage is compared at the
places of the run that has more blocks in it; values of the other are interpolated linearly.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Interpolation(NamedTuple):
    """Values at common places from values at blocks.

    Attributes:
      low: Block at or before each place.
      high: Block after it; `low` itself where the place is that of a block.
      fraction: How far the place lies from `low` to `high`, in [0, 1).
      num_in_stage: Number of blocks in the stage of each place.
    """

    low: Int[np.ndarray, " place"]
    high: Int[np.ndarray, " place"]
    fraction: Float[np.ndarray, " place"]
    num_in_stage: Int[np.ndarray, " place"]

    def __call__(
        self, values: Float[np.ndarray, "*axes block"]
    ) -> Float[np.ndarray, "*axes place"]:
        """Interpolates the last axis."""
        low, high = values[..., self.low], values[..., self.high]
        return low * (1 - self.fraction) + high * self.fraction


class BlockMatch(NamedTuple):
    """Common places of two runs.

    Attributes:
      kind: "block" if the names are equal, else "profile".
      names: Name of each place: the block that lies there.
      a: Brings values of the first run there.
      b: Brings values of the second run there.
    """

    kind: str
    names: tuple[str, ...]
    a: Interpolation
    b: Interpolation


def match_blocks(a: tuple[str, ...], b: tuple[str, ...]) -> BlockMatch:
    """Matches the blocks of two runs; see the head of this module.

    Args:
      a: Block names of the first run in order of depth, without `rest`.
      b: Those of the second run.

    Returns:
      The match.

    Raises:
      ValueError: If the names differ and the stages, or the kinds of blocks in them, do too.

    References:
      House definition.
    """
    if a == b:
        same = _interpolation([np.arange(len(a))], [np.arange(len(a))])
        same = same._replace(num_in_stage=np.ones(len(a), int))
        return BlockMatch(kind="block", names=a, a=same, b=same)
    stages_a, stages_b = _stages(a), _stages(b)
    if list(stages_a) != list(stages_b):
        raise ValueError(
            "runs: blocks must have equal names or equal stages to be compared, got "
            f"{_brief(a)} and {_brief(b)}"
        )
    members_a, members_b = list(stages_a.values()), list(stages_b.values())
    finer = [max(pair, key=len) for pair in zip(members_a, members_b, strict=True)]
    places = [_depths(len(members)) for members in finer]
    names = [
        (a if members is of_a else b)[i]
        for members, of_a in zip(finer, members_a, strict=True)
        for i in members
    ]
    return BlockMatch(
        kind="profile",
        names=tuple(names),
        a=_interpolation(members_a, places),
        b=_interpolation(members_b, places),
    )


def _stages(blocks: tuple[str, ...]) -> dict[tuple[str, str], np.ndarray]:
    """Positions of the blocks of each stage and kind, a kind being the name without its number."""
    stages: dict[tuple[str, str], list[int]] = {}
    for i, name in enumerate(blocks):
        stage, _, block = name.rpartition("/")
        stages.setdefault((stage, re.sub(r"\d+", "#", block)), []).append(i)
    return {key: np.array(members) for key, members in stages.items()}


def _depths(num_blocks: int) -> np.ndarray:
    return np.linspace(0, 1, num_blocks) if num_blocks > 1 else np.array([0.5])


def _interpolation(stages: list[np.ndarray], places: list[np.ndarray]) -> Interpolation:
    """From blocks at even depths in each stage to places given as depth; equal counts map 1:1."""
    parts = []
    for members, place in zip(stages, places, strict=True):
        num = len(members)
        exact = np.arange(num) if len(place) == num else place * (num - 1)
        low = np.minimum((exact + 1e-9).astype(int), num - 1)
        fraction = np.where(np.abs(exact - low) < 1e-9, 0.0, exact - low)
        high = np.where(fraction > 0, np.minimum(low + 1, num - 1), low)
        parts.append((members[low], members[high], fraction, np.full(len(place), num)))
    return Interpolation(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _brief(blocks: tuple[str, ...]) -> str:
    return repr(blocks[0]) if len(blocks) == 1 else f"{blocks[0]!r} to {blocks[-1]!r}"
