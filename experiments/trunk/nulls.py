"""Flows of the null models beside a run: what pruning gives without learning.

In: the states of a run. Out: rows in its record.
"""

import jax
import numpy as np

from experiments.trunk.assemble import Setup
from experiments.trunk.config import Config
from imp_rg.flow import FlowPoint, flow_point
from imp_rg.imp.controls import null_flow, null_sources, shuffle_masks
from imp_rg.imp.operator import ImpState
from imp_rg.imp.record import RunRecord
from imp_rg.imp.replicates import unstack
from imp_rg.nulls import gaussian_flow
from imp_rg.types import Keys, Params

NULLS = ("gaussian", "init", "oneshot", "random")
"""Nulls that every run has; those that retrain are asked for."""


def record_gaussian(record: RunRecord, setup: Setup, initial: Params) -> None:
    """Closed form from the size and the initial standard deviation of each prunable tensor.

    One threshold over all tensors, or one a tensor, as the run itself prunes.
    """
    leaves = jax.device_get(jax.tree.leaves(initial))
    sizes = np.array([leaf[0].size for leaf in leaves])
    unpruned = [leaf for leaf, can in zip(leaves, setup.blocks.prunable, strict=True) if not can]
    for seed in range(len(leaves[0])):
        flow = gaussian_flow(
            sizes,
            np.array([leaf[seed].std() for leaf in leaves], float),
            unpruned=sum(np.abs(leaf[seed]).sum() for leaf in unpruned),
            blocks=setup.blocks,
            schedule=setup.scheme.schedule,
        )
        record.put_null("gaussian", seed, slice(None), flow)


def record_nulls(
    config: Config,
    setup: Setup,
    keys: Keys,
    imp: ImpState,
    rows: np.ndarray,
    record: RunRecord,
) -> None:
    """Records the nulls of this level for the replicates at `rows`.

    Those that prune without training are done for all levels once the dense weights are there.
    """
    level = int(imp.level[0])
    if level == 0:
        for row, key, one in zip(rows, keys[rows], unstack(imp), strict=True):
            sources = null_sources(one.rewind.params, one.variables.params)
            for name, source in sources.items():
                flow = null_flow(
                    jax.random.fold_in(key, config.levels + 1),
                    source,
                    blocks=setup.blocks,
                    schedule=setup.scheme.schedule,
                    prune_fn=setup.scheme.prune,
                )
                record.put_null(name, row, slice(None), jax.device_get(flow))
    if "shuffled" in config.null:
        flow = _shuffled_flow(config, setup, keys[rows], imp)
        record.put_null("shuffled", rows, level, jax.device_get(flow))


def _shuffled_flow(config: Config, setup: Setup, keys: Keys, imp: ImpState) -> FlowPoint:
    """Trains under the masks of this level, permuted within each tensor; fields [seed block]."""
    keys = jax.vmap(lambda key, level: jax.random.fold_in(key, config.levels + 2 + level))(
        keys, imp.level
    )
    masks = jax.vmap(lambda key, masks: shuffle_masks(key, masks, setup.blocks.prunable))(
        keys, imp.masks
    )
    variables, _ = setup.scheme.retrain(keys, imp.rewind, masks, setup.train_data)
    return jax.vmap(lambda params, masks: flow_point(params, masks, blocks=setup.blocks))(
        variables.params, masks
    )
