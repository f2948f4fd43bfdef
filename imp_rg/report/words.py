"""How pages write shares, counts, lists and environments; numbers are `imp_rg.rg.estimate`'s."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def percent_text(fraction: float) -> str:
    """Percent with two digits: 100 %, 51 %, 6.9 %, 0.92 %."""
    percent = 100 * fraction
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"


def count_text(number: int, noun: str) -> str:
    """1 block, 2 blocks."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def block_list(blocks: Iterable[str]) -> str:
    """Names, grouped by what stands before the last slash: stage1: block0, block2; head."""
    groups: dict[str, list[str]] = {}
    for block in blocks:
        prefix, _, name = block.rpartition("/")
        groups.setdefault(prefix, []).append(name)
    return "; ".join(_group_text(prefix, names) for prefix, names in groups.items())


def _group_text(prefix: str, names: list[str]) -> str:
    if not prefix:
        return ", ".join(names)
    return f"{prefix}/{names[0]}" if len(names) == 1 else f"{prefix}: {', '.join(names)}"


def level_list(levels: Sequence[int]) -> str:
    """Runs of levels: 3, 7 to 9."""
    runs: list[list[int]] = []
    for level in levels:
        if runs and level == runs[-1][-1] + 1:
            runs[-1].append(level)
        else:
            runs.append([level])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)


def environment_lines(environment: Mapping[str, Any]) -> dict[str, str]:
    """Versions, device and the like, nested entries as one line each."""
    return {
        name: ", ".join(f"{k} {v}" for k, v in value.items())
        if isinstance(value, Mapping)
        else str(value)
        for name, value in environment.items()
    }
