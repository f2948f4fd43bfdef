"""Nulls of a flow read from disk: what pruning alone does to its first weights.

In: dense (or least pruned) weights of one seed, and how many weights each level keeps. Out: flows
with fields [level block]. The same operator prunes as in a run of our own.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint
from imp_rg.foreign.measure_levels import magnitude
from imp_rg.imp.controls import null_sources
from imp_rg.imp.prune import prune_masks_on_host
from imp_rg.types import Array, Int


def removal_schedule(
    leaf_survivors: Int[np.ndarray, "level leaf"], sizes: Int[np.ndarray, " leaf"]
) -> Int[np.ndarray, "level tensor_or_one"]:
    """How many weights go before each level: by one ranking over all tensors, or by one a tensor.

    A run that keeps the same fraction of every tensor, up to rounding, was pruned tensor by tensor,
    and so are its nulls.

    Args:
      leaf_survivors: Weights kept of each prunable tensor.
      sizes: Weights of each prunable tensor.

    Returns:
      Counts as `imp_rg.imp.prune.prune_schedule` gives them.

    References:
      House definition.
    """
    density = leaf_survivors.sum(axis=1) / sizes.sum()
    # Each level rounds by less than one weight.
    is_even = np.abs(leaf_survivors - density[:, None] * sizes).max() <= len(density)
    kept = np.concatenate([sizes[None], leaf_survivors])
    if not (is_even and len(sizes) > 1 and leaf_survivors.min() > 0):
        kept = kept.sum(axis=1, keepdims=True)
    return -np.diff(kept, axis=0).astype(np.int32)


def pruned_flows(
    dense: Mapping[str, np.ndarray],
    rewind: Mapping[str, np.ndarray] | None,
    *,
    unpruned: tuple[float, float],
    blocks: BlockPartition,
    schedule: Int[np.ndarray, "level tensor_or_one"],
    seed: int,
) -> dict[str, FlowPoint]:
    """Flows of ``oneshot``, ``random`` and, with rewind weights, ``init``.

    Args:
      dense: Prunable weights of the first level, zero where already pruned.
      rewind: Prunable weights of the rewind point.
      unpruned: Summed magnitude of all other weights at the first level and at the rewind point.
      blocks: Partition.
      schedule: Counts to remove before each level.
      seed: Of the random null.

    Returns:
      For each null its flow, fields [level block].

    References:
      House definition, as `imp_rg.imp.controls.null_sources`.
    """
    sources = dict(null_sources(dict(rewind or {}), dict(dense)))
    if rewind is None:
        del sources["init"]
    rest = {"init": unpruned[1]}

    def flow_of(name: str) -> FlowPoint:
        scores = sources[name].score_fn(jax.random.key(seed), sources[name].params, None)
        flow = _prune_and_sum(sources[name].params, scores, blocks, schedule)
        return flow._replace(total=flow.total + rest.get(name, unpruned[0]))

    # Two at a time: more would hold more scores of a large network than its weights.
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(sources, pool.map(flow_of, sources), strict=True))


def _prune_and_sum(
    weights: Mapping[str, np.ndarray],
    scores: Mapping[str, Array],
    blocks: BlockPartition,
    schedule: np.ndarray,
) -> FlowPoint:
    """Prunes by score, level by level, and sums as `imp_rg.foreign.measure_levels` does."""
    masks = {name: np.ones(weight.shape, bool) for name, weight in weights.items()}
    block_of = np.array([i for i in blocks.block_of if i >= 0])
    in_block = (block_of[:, None] == np.arange(len(blocks.names))).astype(float)
    sums = np.zeros((2, len(schedule), len(block_of)))
    for n, num_remove in enumerate(schedule):
        masks = prune_masks_on_host(
            scores,
            masks,
            prunable=(True,) * len(weights),
            num_remove=jnp.asarray(num_remove),
        )
        for k, name in enumerate(sorted(weights)):
            sums[:, n, k] = magnitude(weights[name], masks[name]), np.count_nonzero(masks[name])
    magnitudes, surviving = sums @ in_block
    return FlowPoint(magnitudes, surviving, magnitudes.sum(axis=1))
