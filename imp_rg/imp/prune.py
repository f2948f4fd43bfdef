"""The mask operator M: exact counts, nested masks, one tie rule.

Two routes to one result, tested to be equal to the bit: `prune_masks` runs under jit, vmap and
sharding (the threshold is found by bisection on the bit pattern of the scores, so nothing is
sorted or gathered); `prune_masks_on_host` partitions on the CPU, ten times faster there for large
networks. Among equal scores the weight that comes first in tree order goes first.
"""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.config import CountRule, PruneConfig
from imp_rg.types import Array, Bool, Int, Masks, Scores

SAMPLE_SIZE = 100_000
"""Weights of the sample from which the host route guesses its threshold."""


def prune_schedule(
    sizes: tuple[int, ...], config: PruneConfig, *, num_levels: int
) -> Int[np.ndarray, "level tensor_or_one"]:
    """How many weights go before each level; known beforehand because counts are exact.

    Args:
      sizes: Number of weights of each prunable tensor.
      config: Fraction, what it is a fraction of, scope and count rule.
      num_levels: Number of levels, the dense one included.

    Returns:
      Counts to remove, one column for global scope, one per tensor otherwise. Row 0 is zero: level
      0 is dense.

    Raises:
      ValueError: If a level would keep or remove nothing.

    References:
      Redman et al., App. A (fractions); count rules of `PruneConfig`: house definition.
    """
    totals = sizes if config.is_layerwise else (sum(sizes),)
    columns = [_removals(total, config, num_levels) for total in totals]
    return np.array(columns, np.int32).T


def make_schedule(
    blocks: BlockPartition,
    leaf_sizes: tuple[int, ...],
    config: PruneConfig,
    *,
    num_levels: int,
) -> Int[np.ndarray, "level tensor_or_one"]:
    """Counts to remove before each level, see `prune_schedule`.

    Raises:
      ValueError: If the last level would keep fewer weights than there are blocks.
    """
    sizes = tuple(s for s, can in zip(leaf_sizes, blocks.prunable, strict=True) if can)
    schedule = prune_schedule(sizes, config, num_levels=num_levels)
    kept = sum(sizes) - int(schedule.sum())
    if kept < len(blocks.names):
        raise ValueError(
            f"levels: the last level must keep a weight for each of {len(blocks.names)} blocks, "
            f"got {num_levels - 1} levels, which keep {kept}"
        )
    return schedule


def _removals(total: int, config: PruneConfig, num_levels: int) -> list[int]:
    fraction = Fraction(repr(config.prune_fraction))  # 0.2 is one fifth, not the float beside it
    remaining, removals = total, [0]
    for level in range(1, num_levels):
        if config.fraction_of == "remaining":
            count = _round_count(fraction * remaining, config.count_rule)
        else:  # the cumulative count is rounded, so that errors of rounding do not add up
            count = remaining - total + _round_count(level * fraction * total, config.count_rule)
        if count >= remaining:
            raise ValueError(
                f"levels: level {level} would keep none of {total} prunable weights at "
                f"prune_fraction {config.prune_fraction}, got {num_levels - 1}"
            )
        if count <= 0:  # the scale factor would be 1, and ln c divides every exponent
            raise ValueError(
                f"levels: level {level} would remove none of the {remaining} weights left at "
                f"prune_fraction {config.prune_fraction}, got {num_levels - 1}"
            )
        remaining -= count
        removals.append(count)
    return removals


def _round_count(share: Fraction, rule: CountRule) -> int:
    return math.ceil(share) + 1 if rule == "ceil+1" else round(share)


def prune_masks(
    scores: Scores, masks: Masks, *, prunable: tuple[bool, ...], num_remove: Int[Array, " n"]
) -> Masks:
    """Prunes the lowest surviving scores, exactly as many as asked for.

    Args:
      scores: One finite, non-negative float32 or float64 score a weight.
      masks: Current masks; a weight once pruned stays pruned.
      prunable: For each leaf in tree order, whether it can be pruned.
      num_remove: Counts to remove, [1] for one ranking over all prunable tensors or [tensor] for
        one ranking a tensor. Traced, so one program serves all levels.

    Returns:
      New masks, nested in `masks`; leaves that are not prunable are returned as they are.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3 (operator M). Tie rule: house definition.
    """
    leaves, structure = jax.tree.flatten(masks)
    flat = jax.tree.leaves(scores)
    chosen = [k for k, can in enumerate(prunable) if can]
    groups = [[k] for k in chosen] if num_remove.shape[0] > 1 else [chosen]
    for group, count in zip(groups, num_remove, strict=True):
        kept = _drop_lowest([flat[k] for k in group], [leaves[k] for k in group], count)
        for k, mask in zip(group, kept, strict=True):
            leaves[k] = mask
    return jax.tree.unflatten(structure, leaves)


def _drop_lowest(scores: list[Array], masks: list[Array], count: Array) -> list[Bool[Array, "..."]]:
    """Drops the `count` lowest surviving scores of one ranking."""
    bits = [_ordered_bits(s) for s in scores]
    threshold = _kth_smallest(bits, masks, count)
    below = [m & (b < threshold) for b, m in zip(bits, masks, strict=True)]
    ties = [m & (b == threshold) for b, m in zip(bits, masks, strict=True)]
    missing = count - sum(jnp.sum(b, dtype=jnp.int32) for b in below)
    kept = []
    for mask, low, tie in zip(masks, below, ties, strict=True):
        rank = jnp.cumsum(tie.ravel(), dtype=jnp.int32).reshape(tie.shape)
        kept.append(mask & ~low & ~(tie & (rank <= missing)))
        missing -= jnp.sum(tie, dtype=jnp.int32)
    return kept


def _ordered_bits(scores: Array) -> Array:
    """Unsigned integers in the order of the (non-negative) scores."""
    kind = jnp.uint64 if scores.dtype == jnp.float64 else jnp.uint32
    return jax.lax.bitcast_convert_type(scores, kind)


def _kth_smallest(bits: list[Array], masks: list[Array], k: Array) -> Array:
    """Smallest value with at least k surviving values at or below it, bit by bit from the top."""
    kind = bits[0].dtype
    width = kind.itemsize * 8

    def refine(i, value):
        candidate = value | (jnp.ones((), kind) << (width - 1 - i).astype(kind))
        below = sum(
            jnp.sum(m & (b < candidate), dtype=jnp.int32) for b, m in zip(bits, masks, strict=True)
        )
        return jnp.where(below < k, candidate, value)

    return jax.lax.fori_loop(0, width, refine, jnp.zeros((), kind))


def prune_masks_on_host(
    scores: Scores, masks: Masks, *, prunable: tuple[bool, ...], num_remove: Int[Array, " n"]
) -> Masks:
    """`prune_masks` by partition in NumPy: same masks, not traceable, fast on a CPU.

    Args:
      scores: As for `prune_masks`.
      masks: As for `prune_masks`.
      prunable: As for `prune_masks`.
      num_remove: As for `prune_masks`.

    Returns:
      The masks that `prune_masks` returns, to the bit.

    References:
      As `prune_masks`.
    """
    leaves, structure = jax.tree.flatten(masks)
    flat = [np.asarray(s) for s in jax.tree.leaves(scores)]
    chosen = [k for k, can in enumerate(prunable) if can]
    groups = [[k] for k in chosen] if num_remove.shape[0] > 1 else [chosen]
    for group, count in zip(groups, np.asarray(num_remove), strict=True):
        if count == 0:
            continue
        alive = [np.asarray(leaves[k]) for k in group]
        threshold, missing = _kth_on_host([flat[k] for k in group], alive, int(count))
        for k, mask in zip(group, alive, strict=True):
            kept = mask & (flat[k] > threshold)
            ties = np.flatnonzero(mask & (flat[k] == threshold))
            kept.ravel()[ties[missing:]] = True
            missing = max(missing - len(ties), 0)
            leaves[k] = jnp.asarray(kept)
    return jax.tree.unflatten(structure, leaves)


def _kth_on_host(scores: list[np.ndarray], masks: list[np.ndarray], k: int) -> tuple[float, int]:
    """The k-th smallest surviving score, and how many scores equal to it are among the k.

    A sample brackets the value, and only the survivors inside are partitioned. The sample decides
    how long it takes, never the result: a bracket that misses is replaced by the whole line.
    """
    total = sum(np.count_nonzero(m) for m in masks)
    stride = max(1, total // SAMPLE_SIZE)
    pairs = [(s.ravel()[::stride], m.ravel()[::stride]) for s, m in zip(scores, masks, strict=True)]
    sample = np.sort(np.concatenate([s[m] for s, m in pairs]))
    margin = int(4 * math.sqrt(len(sample))) + 1
    rank = k * len(sample) // total
    infinite = np.array([np.inf], sample.dtype)
    padded = np.concatenate([-infinite, sample, infinite])
    near = padded[max(rank - margin, 0)], padded[min(rank + margin, len(sample) + 1)]
    for low, high in (near, (-np.inf, np.inf)):
        below = sum(np.count_nonzero(m & (s < low)) for s, m in zip(scores, masks, strict=True))
        inside = np.concatenate(
            [s[m & (s >= low) & (s <= high)] for s, m in zip(scores, masks, strict=True)]
        )
        rank = int(k - below)
        if 0 < rank <= len(inside):
            break
    inside.partition(rank - 1)
    threshold = float(inside[rank - 1])
    return threshold, rank - int(np.count_nonzero(inside[:rank] < threshold))
