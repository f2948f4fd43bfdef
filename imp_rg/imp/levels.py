"""Levels 0 to N for all replicates: builds the scheme once, then repeats T and reads the flow.

In: a model, data, settings. Out: one `LevelRecord` a level, host arrays with a leading seed axis.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.config import DataOrder, PruneConfig, TrainConfig
from imp_rg.flow import FlowPoint, flow_point
from imp_rg.imp.drivers import cpu_compiler_options, steps_per_epoch
from imp_rg.imp.evaluate import make_measure_fn
from imp_rg.imp.execution import Execution
from imp_rg.imp.mesh import SEED, num_shards
from imp_rg.imp.modes import make_watched_train_fn
from imp_rg.imp.operator import ImpState, RewindFn, make_first_step, make_imp_step, start_state
from imp_rg.imp.prune import make_schedule, prune_masks, prune_masks_on_host
from imp_rg.imp.replicates import map_replicates
from imp_rg.imp.saliency import SCORES
from imp_rg.imp.train import make_optimizer, make_train_fn
from imp_rg.types import (
    AnyArray,
    ApplyFn,
    Batch,
    Bool,
    Float,
    Int,
    Keys,
    Masks,
    Params,
    Stream,
    TrainFn,
    ValidatedBatch,
    is_accelerator,
)


class LevelRecord(NamedTuple):
    """What one level showed, for all replicates; host arrays.

    Attributes:
      flow: The flow at the three `POINTS`, fields [seed point block]; NaN and 0 where undefined.
      leaf_survivors: Surviving weights of every leaf in tree order, [seed leaf].
      train_loss: Mean cross-entropy over the last epoch, nats, [seed].
      test_metric: Of the test data in percent (accuracy, or what a task asks for), [seed].
      is_finite: Whether the loss stayed finite, [seed].
    """

    flow: FlowPoint
    leaf_survivors: Int[AnyArray, "seed leaf"]
    train_loss: Float[AnyArray, " seed"]
    test_metric: Float[AnyArray, " seed"]
    is_finite: Bool[AnyArray, " seed"]


class Scheme(NamedTuple):
    """Iterative magnitude pruning, built for one model, data set and way of running it.

    Attributes:
      schedule: Counts to remove before each level, [level tensor_or_one].
      blocks: Partition of the prunable leaves.
      start: `(keys, variables, data) -> state` before level 0, all with a leading seed axis.
      step: `(keys, state, data) -> (state, info)`, one level for all replicates.
      retrain: `(keys, variables, masks, data) -> (variables, info)`, F alone, for controls.
      make_try: From a number of steps to `(keys, variables, masks, data) -> variables`, so many
        of F, to be timed.
      measure: `(variables, data) -> percent`, a host array [seed].
      prune: M for one replicate.
      epoch_steps: Optimizer steps an epoch.
    """

    schedule: Int[np.ndarray, "level tensor_or_one"]
    blocks: BlockPartition
    start: Callable[..., ImpState]
    step: Callable[..., Any]
    retrain: Callable[..., Any]
    make_try: Callable[[int], Callable[..., Any]]
    measure: Callable[..., Float[np.ndarray, " seed"]]
    prune: Callable[..., Masks]
    epoch_steps: int


def make_scheme(
    apply_fn: ApplyFn,
    *,
    blocks: BlockPartition,
    leaf_sizes: tuple[int, ...],
    num_examples: int,
    num_levels: int,
    prune_config: PruneConfig,
    train_config: TrainConfig,
    execution: Execution,
    score: str = "magnitude",
    policy: str = "none",
    rewinds_to_best: bool = False,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Scheme:
    """Builds M, F and T for image classification and lifts them over the seed axis.

    Args:
      apply_fn: The network.
      blocks: Partition, which also says what is prunable.
      leaf_sizes: Number of weights of each leaf in tree order.
      num_examples: Of the training set.
      num_levels: The dense level included.
      prune_config: Of M.
      train_config: Of F.
      execution: Driver and strategy.
      score: Name in `imp_rg.imp.saliency.SCORES`.
      policy: Augmentation.
      rewinds_to_best: Whether levels start from the weights with which the dense network did best
        on validation data; the training data are then a `ValidatedBatch`.
      on_progress: Called by the dispatching driver with (replicate, step, loss).

    Returns:
      The scheme.

    Raises:
      ValueError: If a level would keep too few weights or a batch exceeds the data.
    """
    driver, strategy, mesh = execution
    tx = make_optimizer(train_config)
    build: dict[str, Any] = {"config": train_config, "driver": driver, "mesh": mesh}
    build["policy"] = policy
    return assemble_scheme(
        make_train_fn(apply_fn, tx, **build),
        make_measure_fn(apply_fn, driver=driver, strategy=strategy, mesh=mesh),
        start_fn=functools.partial(start_state, config=train_config),
        blocks=blocks,
        schedule=make_schedule(blocks, leaf_sizes, prune_config, num_levels=num_levels),
        execution=execution,
        epoch_steps=steps_per_epoch(num_examples, train_config),
        score=score,
        data_order=train_config.data_order,
        dense_fn=make_watched_train_fn(apply_fn, tx, **build) if rewinds_to_best else None,
        on_progress=on_progress,
    )


def assemble_scheme(
    train_fn: TrainFn,
    measure_fn: Callable[..., Float[np.ndarray, " seed"]],
    *,
    start_fn: Callable[..., ImpState],
    blocks: BlockPartition,
    schedule: Int[np.ndarray, "level tensor_or_one"],
    execution: Execution,
    epoch_steps: int,
    score: str = "magnitude",
    data_order: DataOrder = "reshuffled",
    rewind_fn: RewindFn | None = None,
    dense_fn: Callable[..., Any] | None = None,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Scheme:
    """Builds T from any refine operator and lifts it over the seed axis.

    Args:
      train_fn: F for one replicate; traceable if the driver is ``scan``.
      measure_fn: `(variables, data) -> percent` for all replicates.
      start_fn: `(key, variables, data, *, train_fn) -> state` before level 0, for one replicate.
      blocks: Partition, which also says what is prunable.
      schedule: Counts to remove before each level, see `imp_rg.imp.prune`.
      execution: Driver and strategy.
      epoch_steps: Optimizer steps an epoch.
      score: Name in `imp_rg.imp.saliency.SCORES`.
      data_order: Whether each level draws its own data order.
      rewind_fn: What a level starts from; by default all of the rewind variables.
      dense_fn: F of level 0, if it also finds what later levels are rewound to, see
        `make_first_step`.
      on_progress: Called by the dispatching driver with (replicate, step, loss).

    Returns:
      The scheme.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3.
    """
    driver, strategy, mesh = execution
    is_host = driver == "dispatch" and not is_accelerator()
    prune_fn = prune_masks_on_host if is_host else jax.jit(prune_masks, static_argnames="prunable")
    imp_step = make_imp_step(
        train_fn,
        SCORES[score],
        prunable=blocks.prunable,
        schedule=schedule,
        data_order=data_order,
        prune_fn=prune_fn,
        rewind_fn=rewind_fn,
    )
    first_step = dense_fn and make_first_step(dense_fn, prunable=blocks.prunable)
    if driver == "scan" and strategy != "vmap" and num_shards(mesh, SEED) == 1:
        options: dict[str, Any] = {"compiler_options": cpu_compiler_options()}
        # A replicate's state is its own copy: what the caller holds stays.
        imp_step = jax.jit(imp_step, donate_argnums=1, **options)
        first_step = first_step and jax.jit(first_step, donate_argnums=1, **options)
        train_fn = jax.jit(train_fn, static_argnames=("start", "stop"), **options)

    def train_options(replicate):
        if driver != "dispatch" or on_progress is None:
            return {}
        return {"on_progress": functools.partial(on_progress, replicate)}

    def start(replicate, key, variables, data):
        del replicate
        return start_fn(key, variables, data, train_fn=train_fn)

    def lift(level_step):
        def lifted(replicate, key, state, data):
            return level_step(key, state, data, **train_options(replicate))

        return map_replicates(lifted, strategy, mesh)

    later_steps = lift(imp_step)
    first_steps = lift(first_step) if first_step else later_steps

    def step(keys, state, data):
        is_first = first_step is not None and int(state.level[0]) < 0
        return (first_steps if is_first else later_steps)(keys, state, data)

    def retrain(replicate, key, variables, masks, data):
        del replicate
        return train_fn(key, variables, masks, data)

    def make_try(num_steps):
        def few(replicate, key, variables, masks, data):
            del replicate
            return train_fn(key, variables, masks, data, start=0, stop=num_steps)[0]

        return map_replicates(few, strategy, mesh)

    return Scheme(
        schedule=schedule,
        blocks=blocks,
        start=map_replicates(start, strategy, mesh),
        step=step,
        retrain=map_replicates(retrain, strategy, mesh),
        make_try=make_try,
        measure=measure_fn,
        prune=prune_fn,
        epoch_steps=epoch_steps,
    )


def run_level(
    scheme: Scheme,
    keys: Keys,
    state: ImpState,
    data: Batch | ValidatedBatch | Stream,
    test_data: Batch | Stream,
) -> tuple[ImpState, LevelRecord]:
    """Runs one level for all replicates and reads what it left.

    Args:
      scheme: From `make_scheme`.
      keys: One key a replicate, [seed]; the same at every level.
      state: Stacked states.
      data: Training data.
      test_data: Held-out data.

    Returns:
      The new stacked state and the level's record.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3; points of the flow: house definition.
    """
    previous = state.variables.params
    state, info = scheme.step(keys, state, data)
    flow, leaf_survivors = _observe(previous, state, blocks=scheme.blocks)
    record = LevelRecord(
        flow=flow,
        leaf_survivors=leaf_survivors,
        train_loss=jnp.mean(info.train.loss[:, -scheme.epoch_steps :], axis=1),
        test_metric=scheme.measure(state.variables, test_data),
        is_finite=info.train.is_finite,
    )
    return state, jax.device_get(record)


@functools.partial(jax.jit, static_argnames="blocks")
def _observe(previous: Params, state: ImpState, *, blocks: BlockPartition):
    """Flow at the three points, and survivors by leaf, for all replicates in one pass."""

    def observe(previous_params, state):
        trained = flow_point(state.variables.params, state.masks, blocks=blocks)
        rewound = flow_point(state.rewind.params, state.masks, blocks=blocks)
        postprune = flow_point(previous_params, state.masks, blocks=blocks)
        points = jax.tree.map(lambda *p: jnp.stack(p), trained, rewound, postprune)
        leaves = [jnp.sum(m, dtype=jnp.int32) for m in jax.tree.leaves(state.masks)]
        return points, jnp.stack(leaves)

    return jax.vmap(observe)(previous, state)
