"""The refine operator F of contrastive pre-training: SimCLR and MoCo v2, on masked weights.

What a method carries besides weights and batch statistics lies with the batch statistics, the part
of `Variables` that is not trained: ``optimizer`` (its state, and the step of the schedule),
``queue`` (keys of past batches, the oldest first) and ``key_encoder`` (its params and batch
statistics). Rewinding takes the key encoder back, but neither optimizer nor queue, as the study of
pre-trained tickets did (Chen et al., arXiv:2012.06908).

MoCo shuffles batches between devices so that batch norm cannot tell which key belongs to a query.
On one device there is nothing to shuffle, and nothing is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imp_rg.config import TrainConfig
from imp_rg.data.views import ViewConfig, sample_pair
from imp_rg.imp.contrastive import (
    ContrastiveConfig,
    enqueue,
    info_nce,
    move_average,
    nt_xent,
    unit_rows,
)
from imp_rg.imp.train import descend, learning_rate
from imp_rg.models.projector import EncodeFn
from imp_rg.pytree import apply_masks
from imp_rg.types import Key, Masks, Variables

OPTIMIZER = "optimizer"
QUEUE = "queue"
KEY_ENCODER = "key_encoder"
CARRIED_OVER = (OPTIMIZER, QUEUE)
"""What a rewound level takes over from the one before."""


def add_optimizer(variables: Variables, tx: optax.GradientTransformation) -> Variables:
    """Variables with a fresh optimizer at step 0 of its schedule. House definition."""
    fresh = {"state": tx.init(variables.params), "step": jnp.int32(0)}
    return variables._replace(batch_stats={**variables.batch_stats, OPTIMIZER: fresh})


def add_key_encoder(
    key: Key, variables: Variables, config: ContrastiveConfig, *, num_outputs: int
) -> Variables:
    """Variables with a key encoder equal to the query encoder and a queue of random directions.

    References:
      He et al., arXiv:1911.05722, Algorithm 1, and their released code for the first queue.
    """
    params, stats = jax.tree.map(jnp.copy, variables)
    queue = unit_rows(jax.random.normal(key, (config.queue_size, num_outputs)))
    encoder = {"params": params, "batch_stats": stats}
    return variables._replace(batch_stats={**stats, QUEUE: queue, KEY_ENCODER: encoder})


def strip(variables: Variables) -> Variables:
    """Variables without anything that a method has added to them. House definition."""
    added = (OPTIMIZER, QUEUE, KEY_ENCODER)
    stats = {name: value for name, value in variables.batch_stats.items() if name not in added}
    return variables._replace(batch_stats=stats)


def rewind_both(trained: Variables, rewind: Variables) -> Variables:
    """What a level starts from: both encoders rewound, optimizer and queue carried over.

    References:
      Chen et al., arXiv:2012.06908, and their released code.
    """
    kept = {name: trained.batch_stats[name] for name in CARRIED_OVER if name in trained.batch_stats}
    return rewind._replace(batch_stats={**rewind.batch_stats, **kept})


def begin_kept(variables: Variables, masks: Masks) -> tuple[Variables, None]:
    """Carry before the first step: both encoders masked, the optimizer as it is.

    References:
      Chen et al., arXiv:2012.06908: the masks are those of the query encoder.
    """
    params, stats = apply_masks(variables.params, masks), variables.batch_stats
    if KEY_ENCODER in stats:
        encoder = stats[KEY_ENCODER]
        masked = {**encoder, "params": apply_masks(encoder["params"], masks)}
        stats = {**stats, KEY_ENCODER: masked}
    return Variables(params=params, batch_stats=stats), None


def keep_optimizer(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """Lets the optimizer's state travel within the variables from one call of F to the next.

    `train_step` gets the kept step of the schedule, whatever step the driver counts.

    Args:
      train_step: `(carry, key, masks, data, batch, step) -> (carry, loss)`; its carry is the pair
        of variables and optimizer state.

    Returns:
      The same for `imp_rg.imp.drivers.drive` and `begin_kept`; its carry is the pair of variables
      made by `add_optimizer` and None.

    References:
      House definition.
    """

    def kept_step(carry, key, masks, data, batch, step):
        del step
        variables, _ = carry
        stats = dict(variables.batch_stats)
        kept = stats.pop(OPTIMIZER)
        inner = variables._replace(batch_stats=stats), kept["state"]
        (variables, state), loss = train_step(inner, key, masks, data, batch, kept["step"])
        # Momentum that weights had before they were pruned must not move them.
        params = apply_masks(variables.params, masks)
        optimizer = {"state": state, "step": kept["step"] + 1}
        stats = {**variables.batch_stats, OPTIMIZER: optimizer}
        return (Variables(params=params, batch_stats=stats), None), loss

    return kept_step


def make_simclr_step(
    encode_fn: EncodeFn,
    tx: optax.GradientTransformationExtraArgs,
    *,
    train: TrainConfig,
    config: ContrastiveConfig,
    views: ViewConfig,
    peak: float,
) -> Callable[..., Any]:
    """Builds one step of SimCLR: both views of all images in one pass, then NT-Xent.

    Args:
      encode_fn: See `imp_rg.models.projector.Encoder.make_encode_fn`.
      tx: An Optax optimizer with an injected learning rate.
      train: Schedule of the learning rate.
      config: Of the loss.
      views: What happens to an image.
      peak: Largest raw value of a pixel.

    Returns:
      `train_step(carry, key, masks, data, batch, step) -> (carry, loss)`; the carry is the pair of
      variables and optimizer state.

    References:
      Chen et al., arXiv:2002.05709, Algorithm 1.
    """

    def loss_fn(params, batch_stats, x):
        _, embeddings, stats = encode_fn(params, batch_stats, x, is_training=True)
        loss = nt_xent(embeddings, temperature=config.temperature, reduction=config.reduction)
        return loss, stats

    def train_step(carry, key, masks, data, batch, step):
        variables, opt_state = carry
        key = jax.random.fold_in(key, step)
        x = sample_pair(key, data.x[batch.indices], config=views, peak=peak)
        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(*variables, x)
        rate = learning_rate(step, train)
        params, opt_state = descend(tx, rate, variables.params, opt_state, grads, masks)
        return (Variables(params=params, batch_stats=stats), opt_state), loss

    return train_step


def make_moco_step(
    encode_fn: EncodeFn,
    tx: optax.GradientTransformationExtraArgs,
    *,
    train: TrainConfig,
    config: ContrastiveConfig,
    views: ViewConfig,
    peak: float,
) -> Callable[..., Any]:
    """Builds one step of MoCo: the key encoder moves, keys are made, InfoNCE, then the queue moves.

    Args:
      encode_fn: See `imp_rg.models.projector.Encoder.make_encode_fn`.
      tx: An Optax optimizer with an injected learning rate.
      train: Schedule of the learning rate.
      config: Of loss, queue and key encoder.
      views: What happens to an image.
      peak: Largest raw value of a pixel.

    Returns:
      `train_step(carry, key, masks, data, batch, step) -> (carry, loss)`; the carry is the pair of
      variables with those of `add_key_encoder` and optimizer state.

    References:
      He et al., arXiv:1911.05722, Algorithm 1; Chen et al., arXiv:2003.04297.
    """

    def loss_fn(params, batch_stats, x, keys, queue):
        _, embeddings, stats = encode_fn(params, batch_stats, x, is_training=True)
        queries = unit_rows(embeddings)
        return info_nce(queries, keys, queue, temperature=config.temperature), stats

    def train_step(carry, key, masks, data, batch, step):
        variables, opt_state = carry
        stats = dict(variables.batch_stats)
        queue, encoder = stats.pop(QUEUE), stats.pop(KEY_ENCODER)
        key = jax.random.fold_in(key, step)
        pair = sample_pair(key, data.x[batch.indices], config=views, peak=peak)
        query_view, key_view = jnp.split(pair, 2)
        moved = move_average(encoder["params"], variables.params, config.key_momentum)
        _, keys, key_stats = encode_fn(moved, encoder["batch_stats"], key_view, is_training=True)
        keys = unit_rows(keys)
        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            variables.params, stats, query_view, keys, queue
        )
        rate = learning_rate(step, train)
        params, opt_state = descend(tx, rate, variables.params, opt_state, grads, masks)
        stats = {
            **stats,
            QUEUE: enqueue(queue, keys),
            KEY_ENCODER: {"params": moved, "batch_stats": key_stats},
        }
        return (Variables(params=params, batch_stats=stats), opt_state), loss

    return train_step
