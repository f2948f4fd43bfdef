"""The refine operator F of image classification: an Optax loop on masked weights.

`imp_rg.imp.drivers` repeats its step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from imp_rg.config import TrainConfig
from imp_rg.data.augment import augment
from imp_rg.imp.drivers import Driver, drive
from imp_rg.pytree import apply_masks
from imp_rg.types import ApplyFn, Array, Float, Masks, Params, TrainFn, Variables


def learning_rate(step: Array, config: TrainConfig) -> Float[Array, ""]:
    """Learning rate at a step of the schedule, from Optax's schedules.

    Linear warm-up multiplies the schedule proper, which is counted from step 0.

    References:
      House definition.
    """
    if config.schedule == "cosine":
        proper = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    elif config.schedule == "constant":
        proper = optax.constant_schedule(config.learning_rate)
    else:
        drops = {round(m * config.num_steps): 0.1 for m in config.milestones}
        proper = optax.piecewise_constant_schedule(config.learning_rate, drops)
    warmup = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
    return jnp.asarray(proper(step) * warmup, jnp.float32)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformationExtraArgs:
    """SGD whose learning rate is set from the step of the schedule, not from its own count.

    A rewound level starts with fresh momentum but in the middle of the schedule, so the two counts
    differ. Weight decay is added before momentum, as PyTorch does.
    """

    def sgd(learning_rate):
        return optax.chain(
            optax.add_decayed_weights(config.weight_decay),
            optax.sgd(learning_rate, config.momentum or None, config.nesterov),
        )

    return optax.inject_hyperparams(sgd)(learning_rate=config.learning_rate)


def descend(
    tx: optax.GradientTransformationExtraArgs,
    rate: Float[Array, ""],
    params: Params,
    opt_state: Any,
    grads: Params,
    masks: Masks,
) -> tuple[Params, Any]:
    """One step of an optimizer of `make_optimizer` on the weights that are left.

    Masked gradients keep pruned weights at exactly 0 through momentum and weight decay.
    """
    before = opt_state.hyperparams["learning_rate"]
    opt_state.hyperparams["learning_rate"] = rate.astype(before.dtype)
    updates, opt_state = tx.update(apply_masks(grads, masks), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def make_train_step(
    apply_fn: ApplyFn,
    tx: optax.GradientTransformationExtraArgs,
    *,
    config: TrainConfig,
    policy: str = "none",
):
    """Builds one step of F, a pure function to be scanned or dispatched.

    Args:
      apply_fn: The network.
      tx: An Optax optimizer with an injected learning rate, see `make_optimizer`.
      config: Schedule.
      policy: Augmentation, see `imp_rg.data.augment`.

    Returns:
      `train_step(carry, key, masks, data, batch, step) -> (carry, loss)`; the carry is the pair
      of variables and optimizer state, the batch one row of a `BatchPlan`.
    """

    def loss_fn(params, batch_stats, x, y, weights):
        variables = Variables(params=params, batch_stats=batch_stats)
        # Without padding, no weights: a masked batch mean costs time and rounding.
        is_padded = config.last_batch == "keep"
        logits, stats = apply_fn(
            variables, x, is_training=True, weights=weights if is_padded else None
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.sum(losses * weights) / jnp.sum(weights), stats

    def train_step(carry, key, masks, data, batch, step):
        variables, opt_state = carry
        x = augment(jax.random.fold_in(key, step), data.x[batch.indices], policy=policy)
        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            variables.params, variables.batch_stats, x, data.y[batch.indices], batch.weights
        )
        rate = learning_rate(step, config)
        params, opt_state = descend(tx, rate, variables.params, opt_state, grads, masks)
        return (Variables(params=params, batch_stats=stats), opt_state), loss

    return train_step


def make_begin(tx: optax.GradientTransformationExtraArgs):
    """Builds `begin(variables, masks) -> carry`: masked weights and a fresh optimizer."""

    def begin(variables, masks):
        params = apply_masks(variables.params, masks)
        return Variables(params=params, batch_stats=variables.batch_stats), tx.init(params)

    return begin


def make_train_fn(
    apply_fn: ApplyFn,
    tx: optax.GradientTransformationExtraArgs,
    *,
    config: TrainConfig,
    driver: Driver,
    policy: str = "none",
    mesh: Mesh | None = None,
) -> TrainFn:
    """Builds the refine operator F.

    Args:
      apply_fn: The network.
      tx: Optimizer; every call starts it afresh.
      config: Schedule, batches, order.
      driver: ``scan`` (traceable) or ``dispatch`` (a Python loop that jits its own step and takes
        an optional `on_progress(step, loss)`).
      policy: Augmentation, see `imp_rg.data.augment`.
      mesh: Devices; over ``batch`` each step's examples are divided over them.

    Returns:
      `train_fn(key, variables, masks, data, *, start, stop) -> (variables, TrainInfo)`, which runs
      the steps [start, stop) of the schedule; by default those of a rewound level.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3 (operator F).
    """
    train_step = make_train_step(apply_fn, tx, config=config, policy=policy)
    return drive(train_step, make_begin(tx), config=config, driver=driver, mesh=mesh)
