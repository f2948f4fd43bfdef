"""Flows of the null models that need weights: what pruning alone would do to the shares.

Each null keeps as many weights at every level as the run it is compared with.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint, flow_point
from imp_rg.imp import saliency
from imp_rg.pytree import ones_masks
from imp_rg.types import Int, Key, Masks, Params, ScoreFn


class NullSource(NamedTuple):
    """Weights a null prunes, and how.

    Attributes:
      params: The weights.
      score_fn: What ranks them.
    """

    params: Params
    score_fn: ScoreFn


def null_sources(rewind_params: Params, dense_params: Params) -> Mapping[str, NullSource]:
    """The nulls that always run.

    ``init`` prunes the rewind weights and ``oneshot`` the trained dense weights, both by magnitude
    and without training; ``random`` prunes the trained dense weights at random.

    References:
      House definition, beside Redman et al., Sec. 5, which has no null models.
    """
    return {
        "init": NullSource(rewind_params, saliency.magnitude),
        "oneshot": NullSource(dense_params, saliency.magnitude),
        "random": NullSource(dense_params, saliency.random),
    }


# One program serves all levels: run op by op, the nulls of a small network outlast its training.
_flow_point = jax.jit(flow_point, static_argnames="blocks")


def null_flow(
    key: Key,
    source: NullSource,
    *,
    blocks: BlockPartition,
    schedule: Int[np.ndarray, "level tensor_or_one"],
    prune_fn,
) -> FlowPoint:
    """Prunes untrained weights level by level and reads the flow.

    Args:
      key: Draws the scores of random nulls, the same at all levels, so that masks nest.
      source: Weights and score.
      blocks: Partition.
      schedule: Counts to remove before each level, as for the run itself.
      prune_fn: `prune_masks` (jitted) or `prune_masks_on_host`.

    Returns:
      Flow with fields [level block].

    References:
      House definition.
    """
    masks = ones_masks(source.params)
    scores = source.score_fn(key, source.params, masks)
    points = []
    for num_remove in schedule:
        masks = prune_fn(
            scores, masks, prunable=blocks.prunable, num_remove=jnp.asarray(num_remove)
        )
        points.append(_flow_point(source.params, masks, blocks=blocks))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)


def shuffle_masks(key: Key, masks: Masks, prunable: tuple[bool, ...]) -> Masks:
    """Permutes each mask within its tensor: keeps the density of every tensor, nothing else."""
    leaves, structure = jax.tree.flatten(masks)
    keys = [jax.random.fold_in(key, k) for k in range(len(leaves))]
    shuffled = [
        jax.random.permutation(k, leaf.ravel()).reshape(leaf.shape) if can else leaf
        for k, leaf, can in zip(keys, leaves, prunable, strict=True)
    ]
    return jax.tree.unflatten(structure, shuffled)
