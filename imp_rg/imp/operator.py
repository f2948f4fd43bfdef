"""T = F o M: one level of iterative magnitude pruning as a pure function of state.

In: a replicate's state. Out: its state one level on. `run_levels` in `imp_rg.imp.levels` repeats it
for all replicates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.config import DataOrder, TrainConfig
from imp_rg.imp.drivers import TrainInfo
from imp_rg.imp.prune import prune_masks
from imp_rg.pytree import num_kept, ones_masks
from imp_rg.types import (
    Array,
    Batch,
    Int,
    Key,
    Masks,
    ScoreFn,
    Stream,
    TrainFn,
    ValidatedBatch,
    Variables,
)

RewindFn = Callable[[Variables, Variables], Variables]
"""From trained and rewind variables to those that the next level starts from."""


class ImpState(NamedTuple):
    """A replicate between two levels.

    Attributes:
      level: Prunings done; -1 before the dense network is trained.
      variables: Trained at this level; before level 0, where its training starts.
      masks: Of this level.
      rewind: Variables that every later level starts from.
    """

    level: Int[Array, ""]
    variables: Variables
    masks: Masks
    rewind: Variables


class ImpInfo(NamedTuple):
    """What one level showed.

    Attributes:
      train: Losses of every step.
      num_kept: Prunable weights that survive.
    """

    train: TrainInfo
    num_kept: Int[Array, ""]


def start_state(
    key: Key,
    variables: Variables,
    data: Batch | ValidatedBatch | Stream,
    *,
    train_fn: TrainFn,
    config: TrainConfig,
) -> ImpState:
    """State before level 0: trains from the initial variables to the rewind step.

    With ``continue``, level 0 goes on from there with a fresh optimizer; with ``restart`` it is an
    uninterrupted run from the initial variables, whose first steps are the same.
    """
    masks = ones_masks(variables.params)
    rewind = variables
    if config.rewind_step > 0:
        _, refine_key = _level_keys(key, 0)
        rewind, _ = train_fn(refine_key, variables, masks, data, start=0, stop=config.rewind_step)
    start = rewind if config.after_rewind == "continue" else variables
    return ImpState(level=jnp.int32(-1), variables=start, masks=masks, rewind=rewind)


def start_at(
    key: Key, variables: Variables, data: Batch | ValidatedBatch | Stream, *, train_fn: TrainFn
) -> ImpState:
    """State before level 0 where every level starts from the initial variables themselves."""
    del key, data, train_fn
    masks = ones_masks(variables.params)
    return ImpState(level=jnp.int32(-1), variables=variables, masks=masks, rewind=variables)


def make_imp_step(
    train_fn: TrainFn,
    score_fn: ScoreFn,
    *,
    prunable: tuple[bool, ...],
    schedule: Int[np.ndarray, "level tensor_or_one"],
    data_order: DataOrder = "reshuffled",
    prune_fn: Callable[..., Masks] = prune_masks,
    rewind_fn: RewindFn | None = None,
) -> Callable[..., tuple[ImpState, ImpInfo]]:
    """Builds T = F o M.

    Args:
      train_fn: Refine operator F.
      score_fn: Ranks the trained weights.
      prunable: For each leaf in tree order, whether it can be pruned.
      schedule: Counts to remove before each level, see `prune_schedule`.
      data_order: Whether each level draws its own data order.
      prune_fn: `prune_masks`, or its twin for the host.
      rewind_fn: What a level starts from; by default all of the rewind variables.

    Returns:
      `imp_step(key, state, data, **train_options) -> (state, info)` for one replicate. It can be
      jitted and vmapped if `train_fn` and `prune_fn` can; the level is traced, so one program
      serves all levels.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3, T = F o M.
    """

    def imp_step(key, state, data, **train_options):
        level = state.level + 1
        score_key, refine_key = _level_keys(key, level)
        if data_order == "fixed":
            _, refine_key = _level_keys(key, 0)
        scores = score_fn(score_key, state.variables.params, state.masks)
        masks = prune_fn(
            scores, state.masks, prunable=prunable, num_remove=jnp.asarray(schedule)[level]
        )
        rewound = state.rewind if rewind_fn is None else rewind_fn(state.variables, state.rewind)
        start = jax.tree.map(
            lambda dense, rewound: jnp.where(level == 0, dense, rewound), state.variables, rewound
        )
        variables, info = train_fn(refine_key, start, masks, data, **train_options)
        state = ImpState(level=level, variables=variables, masks=masks, rewind=state.rewind)
        return state, ImpInfo(train=info, num_kept=num_kept(masks, prunable))

    return imp_step


def make_first_step(
    train_fn: Callable[..., Any], *, prunable: tuple[bool, ...]
) -> Callable[..., tuple[ImpState, ImpInfo]]:
    """Builds level 0 for the mode in which later levels start from the best weights it had.

    Args:
      train_fn: From `imp_rg.imp.modes.make_watched_train_fn`.
      prunable: For each leaf in tree order, whether it can be pruned.

    Returns:
      `first_step(key, state, data, **train_options) -> (state, info)` for one replicate, which
      trains the dense network as `make_imp_step` does and puts its best weights in `state.rewind`.

    References:
      Chen et al., arXiv:2012.06908, released code (mode ``pt``).
    """

    def first_step(key, state, data, **train_options):
        _, refine_key = _level_keys(key, 0)
        watched, info = train_fn(refine_key, state.variables, state.masks, data, **train_options)
        state = ImpState(
            level=state.level + 1,
            variables=watched.variables,
            masks=state.masks,
            rewind=watched.best,
        )
        return state, ImpInfo(train=info, num_kept=num_kept(state.masks, prunable))

    return first_step


def _level_keys(key: Key, level: Array | int) -> tuple[Key, Key]:
    """Keys of a level's scores and of its data order and augmentation."""
    score_key, refine_key = jax.random.split(jax.random.fold_in(key, level))
    return score_key, refine_key
