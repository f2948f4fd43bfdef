"""Checkpoints that belong together by their names: one a level, masks beside them.

In: names and paths from one folder. Out: the files of each level, in order.
"""

import re
from pathlib import Path
from typing import NamedTuple


class LevelFiles(NamedTuple):
    """What one level lies in.

    Attributes:
      weights: Checkpoint; its masks may be inside.
      masks: A file of masks of its own, None without.
    """

    weights: Path
    masks: Path | None


class Named(NamedTuple):
    """A checkpoint under the name that places it: its own, or its folder's."""

    name: str
    path: Path


_LEVEL = re.compile(r"(?<![a-z])(?:level|lvl)[-_ ]*(\d+)", re.I)
_SUFFIXES = re.compile(r"(\.(pt|pth|th|bin|ckpt|tar|npz|safetensors|msgpack))+$", re.I)
_REMEDY = "rename them or write a manifest.json"


def natural_key(name: str) -> list[str | int]:
    """Sorts numbers within names by their value: ``level2`` before ``level10``."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def level_number(name: str) -> int | None:
    """The number after the word ``level`` in a name."""
    match = _LEVEL.search(name)
    return int(match[1]) if match else None


def order_levels(
    folder: Path, weights: list[Named], masks: list[Named]
) -> tuple[tuple[LevelFiles, ...], tuple[int, ...]]:
    """Orders checkpoints and gives each its masks.

    The number of a level is the one after the word ``level``, else the only one that differs from
    name to name, if it counts from 0 or 1. Names without such a number stand in natural order.

    Args:
      folder: Named in errors.
      weights: At least one.
      masks: One a level with the same number, or as many as `weights` in natural order.

    Returns:
      The files of each level and the levels' numbers.

    Raises:
      ValueError: If a level is missing or there twice, or masks and weights do not pair.
    """
    weights = sorted(weights, key=lambda item: natural_key(item.name))
    numbers = _numbers([item.name for item in weights])
    if numbers is None:
        _check_once(folder, [_stem(item.name) for item in weights], weights)
        numbers = list(range(len(weights)))
    else:
        _check_once(folder, [f"level {number}" for number in numbers], weights)
        # One checkpoint alone is itself; several may count from 1, but do not start later.
        first = numbers[0] if len(numbers) == 1 or numbers[0] == 1 else 0
        check_gaps(folder, numbers, first=first)
    mask_of = _pair_masks(folder, weights, numbers, masks)
    files = (LevelFiles(w.path, mask_of.get(n)) for n, w in zip(numbers, weights, strict=True))
    return tuple(files), tuple(numbers)


def check_gaps(folder: Path, numbers: list[int], *, first: int) -> None:
    """Raises `ValueError` unless sorted level numbers count up by one from `first`."""
    missing = [str(n) for n in range(first, numbers[-1]) if n not in numbers]
    if missing:
        raise ValueError(
            f"{folder}: levels must count up by one, missing level {', '.join(missing)}"
        )


def _numbers(names: list[str]) -> list[int] | None:
    """Level numbers that names carry, None if they carry none."""
    levels = [number for name in names if (number := level_number(name)) is not None]
    if len(levels) == len(names):
        return levels
    rows = [re.findall(r"\d+", _stem(name)) for name in names]
    if len({len(row) for row in rows}) > 1:
        return None
    columns = [column for column in zip(*rows, strict=True) if len(set(column)) > 1]
    if len(columns) != 1:
        return None
    numbers = [int(digits) for digits in columns[0]]
    # Epochs, densities and percentages are labels: they do not count the files.
    return numbers if min(numbers) <= 1 and max(numbers) < 2 * len(numbers) else None


def _pair_masks(
    folder: Path, weights: list[Named], numbers: list[int], masks: list[Named]
) -> dict[int, Path]:
    """Mask files by level number."""
    masks = sorted(masks, key=lambda item: natural_key(item.name))
    # Names of masks alone may be too few to show which number counts the levels.
    own = _numbers([item.name for item in masks])
    joint = _numbers([item.name for item in (*weights, *masks)])
    if own is None and joint is not None and joint[: len(weights)] == numbers:
        own = joint[len(weights) :]
    if own is not None and set(own) <= set(numbers):
        _check_once(folder, [f"the masks of level {number}" for number in own], masks)
        return {number: item.path for number, item in zip(own, masks, strict=True)}
    if masks and len(masks) != len(weights):
        raise ValueError(
            f"{folder}: must hold one mask file a level, got {len(masks)} for {len(weights)} levels"
            f" and numbers that do not match; {_REMEDY}"
        )
    return {number: item.path for number, item in zip(numbers, masks, strict=False)}


def _check_once(folder: Path, labels: list[str], items: list[Named]) -> None:
    for label in labels:
        twice = [item.path for i, item in enumerate(items) if labels[i] == label]
        if len(twice) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in twice)
            raise ValueError(
                f"{folder}: must hold one file for {label}, got {names};"
                f" give each seed a folder of its own, {_REMEDY}"
            )


def _stem(name: str) -> str:
    return _SUFFIXES.sub("", name)
