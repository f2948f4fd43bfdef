"""Groups of blocks: shares summed until the data can determine how they drive each other.

In: block names and what ``--group`` says. Out: for each group the positions of its blocks.
"""

from difflib import get_close_matches

import numpy as np
from jaxtyping import Float

from imp_rg.blocks import REST, parse_blocks
from imp_rg.config import require
from imp_rg.pytree import matches


def group_blocks(
    names: tuple[str, ...], group: str, *, without_rest: bool
) -> dict[str, tuple[int, ...]]:
    """Divides blocks into groups.

    Args:
      names: Of the blocks.
      group: ``stage`` (what stands before the first slash), ``block``, or
        ``NAME=PATTERN[+PATTERN],NAME=...`` over block names; blocks in no group form ``rest``.
      without_rest: Whether ``rest`` is left out.

    Returns:
      Group name to positions in `names`; ``rest`` comes last.

    Raises:
      ValueError: If `group` is not understood, a pattern matches no block, a block lies in two
        groups, or fewer than two groups are left.

    References:
      House definition.
    """
    if group in ("stage", "block"):
        owners = [name.split("/")[0] if group == "stage" else name for name in names]
    else:
        owners = _owners(names, group)
    listed = [owner for owner in dict.fromkeys(owners) if owner != REST]
    if REST in owners and not without_rest:
        listed.append(REST)
    require(len(listed) >= 2, "group", f"{group} must leave at least two groups", listed)
    return {name: tuple(i for i, o in enumerate(owners) if o == name) for name in listed}


def group_shares(
    shares: Float[np.ndarray, "seed level block"], groups: dict[str, tuple[int, ...]]
) -> Float[np.ndarray, "seed level group"]:
    """Sums shares by group, over complete seeds: no level missing, no group empty.

    What is left out is left out of the denominator, too. House definition.
    """
    sums = np.stack([shares[..., blocks].sum(axis=-1) for blocks in groups.values()], axis=-1)
    is_complete = (np.isfinite(sums) & (sums > 0)).all(axis=(1, 2))
    sums = sums[is_complete]
    return sums / sums.sum(axis=-1, keepdims=True)


def _owners(names: tuple[str, ...], group: str) -> list[str]:
    try:
        patterns = parse_blocks(group)
    except ValueError:
        patterns = group
    if isinstance(patterns, str):
        rule = "must be stage, block or NAME=PATTERN[+PATTERN],NAME=..."
        raise ValueError(f"group: {rule}, got {group!r}")
    require(REST not in patterns, "group", f"the name {REST} is kept for all other blocks", group)
    for pattern in (pattern for of_group in patterns.values() for pattern in of_group):
        near = get_close_matches(pattern, names, n=3, cutoff=0.3)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        is_found = any(matches(name, (pattern,)) for name in names)
        require(is_found, "group", f"each pattern must match a block{hint}", pattern)
    owners = []
    for name in names:
        found = [owner for owner in patterns if matches(name, patterns[owner])]
        require(len(found) < 2, "group", f"block {name} must lie in one group", found)
        owners.append(found[0] if found else REST)
    return owners
