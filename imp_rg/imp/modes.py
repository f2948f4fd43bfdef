"""The modes of IMP in the vision study: what levels are rewound to, and the schedule of a level.

In: a mode and the length of an epoch. Out: settings of F, and for ``pt`` an F of level 0 that also
returns the weights it did best with.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from imp_rg.config import TrainConfig, require, require_choice
from imp_rg.imp.drivers import Driver, drive, steps_per_epoch
from imp_rg.imp.evaluate import make_count_fn
from imp_rg.imp.train import make_begin, make_train_step
from imp_rg.types import ApplyFn, Array, Batch, Int, Variables

Mode = Literal["lt", "rewind_lt", "pt", "pt_trans"]
"""What every level but the dense one starts from.

``lt``: the random initial weights; ``rewind_lt``: those of epoch 9 of the dense network's 182;
``pt``: those with which the dense network did best on validation data; ``pt_trans``: pre-trained
weights, which the dense network starts from too.
"""

STUDY_EPOCHS = 182
WARMUP_EPOCHS = 1
REWIND_EPOCH = 9
DROP_EPOCHS = (91, 136)
"""The schedule of the study, whose ratios every shorter one keeps."""


def scaled_config(
    mode: Mode,
    *,
    steps_per_epoch: int,
    epochs: int | float = STUDY_EPOCHS,
    epochs_scale: int | float = 1.0,
    batch_size: int = 256,
    learning_rate: int | float = 0.1,
) -> TrainConfig:
    """Settings of F: the study's recipe, its schedule compressed to another length.

    Warm-up, drops and rewind point lie at the same fractions of the schedule as in the study: 1,
    91, 136 and 9 of 182.

    Args:
      mode: Decides the rewind step: that of epoch 9, or 0 where levels start from given weights.
      steps_per_epoch: Optimizer steps in one pass over the data.
      epochs: Length of the schedule.
      epochs_scale: Multiplies it.
      batch_size: Images a step.
      learning_rate: Peak value.

    Returns:
      The settings; after each rewind the whole schedule runs again, warm-up included.

    Raises:
      ValueError: If the schedule is too short for a step of warm-up or one before the rewind point.

    References:
      Chen et al., arXiv:2012.06908, Table 1 and released code.
    """
    require_choice("mode", mode, Mode)
    for name, value in (("epochs", epochs), ("epochs_scale", epochs_scale)):
        require(0 < value < math.inf, name, "must be positive and finite", value)
    length = epochs * epochs_scale * steps_per_epoch

    def step_of(epoch: int) -> int:
        return round(length * epoch / STUDY_EPOCHS)

    for epoch, name in (
        (REWIND_EPOCH, "a step before the rewind"),
        (WARMUP_EPOCHS, "a warm-up step"),
    ):
        rule = f"must leave {name}, {epoch} of {STUDY_EPOCHS} epochs, of its {length:.0f} steps"
        require(step_of(epoch) >= 1, "epochs_scale", rule, epochs_scale)
    return TrainConfig(
        num_steps=round(length),
        rewind_step=step_of(REWIND_EPOCH) if mode == "rewind_lt" else 0,
        after_rewind="restart",
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=0.9,
        weight_decay=2e-4,
        schedule="step",
        milestones=tuple(epoch / STUDY_EPOCHS for epoch in DROP_EPOCHS),
        warmup_steps=step_of(WARMUP_EPOCHS),
        last_batch="drop",
    )


class Watched(NamedTuple):
    """A network in training, and the best one so far.

    Attributes:
      variables: Of this step.
      best: At the end of the epoch with most validation images right, the first of equals.
      best_correct: How many; -1 before the first epoch has ended.
    """

    variables: Variables
    best: Variables
    best_correct: Int[Array, ""]


def make_watched_train_fn(
    apply_fn: ApplyFn,
    tx: optax.GradientTransformationExtraArgs,
    *,
    config: TrainConfig,
    driver: Driver,
    policy: str = "none",
    mesh: Mesh | None = None,
) -> Callable[..., tuple[Watched, Any]]:
    """Builds F of a dense network that is watched on validation data: one run, no restart.

    Args:
      apply_fn: The network.
      tx: Optimizer.
      config: Schedule, batches, order.
      driver: ``scan`` or ``dispatch``, see `imp_rg.imp.drivers`.
      policy: Augmentation of the training images.
      mesh: Devices; over ``batch`` each step's examples are divided over them.

    Returns:
      `train_fn(key, variables, masks, data)` like that of `make_train_fn`, for a
      `imp_rg.types.ValidatedBatch`;
      it returns `Watched` in the place of the variables.

    References:
      Chen et al., arXiv:2012.06908, released code (mode ``pt``).
    """
    train_step = make_train_step(apply_fn, tx, config=config, policy=policy)
    begin_plain, num_correct = make_begin(tx), make_count_fn(apply_fn, driver="scan", mesh=mesh)

    def begin(variables, masks):
        variables, opt_state = begin_plain(variables, masks)
        nothing = jax.tree.map(jnp.zeros_like, variables)
        return Watched(variables, best=nothing, best_correct=jnp.int32(-1)), opt_state

    def watched_step(carry, key, masks, data, batch, step):
        watched, opt_state = carry
        (variables, opt_state), loss = train_step(
            (watched.variables, opt_state), key, masks, data, batch, step
        )

        def look(best, best_correct):
            correct = num_correct(variables, Batch(data.x_val, data.y_val)).astype(jnp.int32)
            is_better = correct > best_correct
            best = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), variables, best)
            return best, jnp.maximum(correct, best_correct)

        per_epoch = steps_per_epoch(data.x.shape[0], config)
        is_end = ((step + 1) % per_epoch == 0) | (step + 1 == config.num_steps)
        best = jax.lax.cond(is_end, look, lambda *kept: kept, watched.best, watched.best_correct)
        return (Watched(variables, *best), opt_state), loss

    train_fn: Any = drive(watched_step, begin, config=config, driver=driver, mesh=mesh)
    return train_fn
