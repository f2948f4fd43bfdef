"""The refine operator F for pre-trained encoders: AdamW, linear decay, dropout, length buckets.

One jitted, donated step for each width of input, dispatched from Python on every device: a step is
long beside its dispatch. A level is whole epochs, each a new permutation, so that a stream of data
which goes on from level to level and one that is drawn anew at each level are the same thing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imp_rg.config import require, require_choice
from imp_rg.data.text.batches import TextBatch, plan_epoch
from imp_rg.imp.drivers import STEPS_PER_SLICE, Progress, TrainInfo
from imp_rg.imp.losses import LossFn, SampleFn
from imp_rg.imp.operator import RewindFn
from imp_rg.pytree import apply_masks, leaf_paths
from imp_rg.types import Batch, Int, Key, TrainFn, Variables

Schedule = Literal["level", "run"]
RewindScope = Literal["all_bert", "prunable_only"]

HEAD = "head/"
"""Where the paths of the task's own leaves begin; all others are the encoder's."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """The refine operator F of a pre-trained encoder, and what a level starts from.

    Attributes:
      epochs: Passes over the data a level.
      batch_size: Examples a step; an incomplete last batch is kept.
      accumulate: Parts of a batch whose gradients are added up, one after the other: less memory,
        the same gradient but for the draws of dropout. A step of BERT-base on 32 inputs of 128
        tokens takes 7.4 GB in 1 part and 3.3 GB in 4, weights and moments included.
      learning_rate: At the first step of a level; it falls linearly.
      schedule: ``level`` falls to 0 within each level. ``run`` falls to 0 over all levels, but
        starts anew with each, so that a level only sees the beginning of the slope: that is how
        the study of BERT tickets was run.
      clip_norm: Largest norm of the gradient of all weights.
      buckets: Widths to which inputs are padded, evenly spaced; 1 pads all to one width.
      rewind_scope: What a level takes from the checkpoint again: the whole encoder, or only the
        matrices that can be pruned, while embeddings, norms and biases stay trained.
      reset_head: Whether the head goes back, too, to its first draw; else it is carried over.

    References:
      Chen et al., arXiv:2007.12223, Sec. 3 and their released code.
    """

    epochs: int = 1
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 2e-5
    schedule: Schedule = "level"
    clip_norm: float = 1.0
    buckets: int = 4
    rewind_scope: RewindScope = "all_bert"
    reset_head: bool = False

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate", "buckets"):
            value = getattr(self, name)
            require(value >= 1, name, "must be at least 1", value)
        rule = f"must divide the batch size {self.batch_size}"
        require(self.batch_size % self.accumulate == 0, "accumulate", rule, self.accumulate)
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            require(0 < value < float("inf"), name, "must be positive and finite", value)
        require_choice("schedule", self.schedule, Schedule)
        require_choice("rewind_scope", self.rewind_scope, RewindScope)

    def epoch_steps(self, num_examples: int) -> int:
        """Optimizer steps in one pass over the data."""
        return -(-num_examples // self.batch_size)

    def level_steps(self, num_examples: int) -> int:
        """Optimizer steps of a level."""
        return self.epochs * self.epoch_steps(num_examples)


def bucket_widths(longest: int, num_buckets: int) -> tuple[int, ...]:
    """Rising widths in steps of a multiple of 8 tokens, up to the longest input.

    House definition.
    """
    step = 8 * -(-longest // (8 * num_buckets))
    return (*range(step, longest, step), longest)


def plan_level(
    key: Key, length: Int[np.ndarray, " example"], config: FinetuneConfig, widths: Sequence[int]
) -> list[TextBatch]:
    """Batches of all steps of a level: a new permutation each epoch.

    References:
      House definition; see `imp_rg.data.text.batches.plan_epoch`.
    """
    return [
        batch
        for epoch in range(config.epochs)
        for batch in plan_epoch(
            jax.random.fold_in(key, epoch), length, batch_size=config.batch_size, widths=widths
        )
    ]


def linear_decay(step: int, num_steps: int, peak: float) -> np.float32:
    """Learning rate at a step: the peak at step 0, 0 at step `num_steps`.

    References:
      Devlin et al., arXiv:1810.04805, App. A.2, without their warm-up.
    """
    return np.float32(peak * max(0.0, 1.0 - step / num_steps))


def make_adam(config: FinetuneConfig) -> optax.GradientTransformation:
    """Clipped Adam; the step multiplies by the learning rate.

    It is AdamW, as the study of BERT tickets has it, whose weight decay is 0.

    References:
      Kingma & Ba, arXiv:1412.6980; Loshchilov & Hutter, arXiv:1711.05101.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    )


def make_finetune_step(
    apply_fn,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    sample_fn: SampleFn | None = None,
):
    """Builds one step of F, which neither knows the size of the data nor the schedule.

    Args:
      apply_fn: The network, see `imp_rg.models.bert.BertModel.make_apply_fn`.
      loss_fn: One of `imp_rg.imp.losses.LOSSES`.
      tx: See `make_adam`.
      accumulate: Parts of a batch, see `FinetuneConfig`.
      sample_fn: What a step draws of its batch, such as the words that are masked.

    Returns:
      `finetune_step(carry, key, masks, batch, weights, step, rate) -> (carry, loss)`; the carry is
      the pair of variables and optimizer state.
    """

    @jax.value_and_grad
    def grad_fn(params, batch_stats, key, batch, shares):
        variables = Variables(params=params, batch_stats=batch_stats)
        outputs, _ = apply_fn(variables, batch.x, is_training=True, key=key)
        return jnp.sum(loss_fn(outputs, batch.y, batch.x.length) * shares)

    def sum_parts(params, batch_stats, key, batch, shares):
        def add(total, part):
            number, batch, shares = part
            part_key = jax.random.fold_in(key, number)
            new = grad_fn(params, batch_stats, part_key, batch, shares)
            return jax.tree.map(jnp.add, total, new), None

        parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), (batch, shares))
        zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(add, zeros, (jnp.arange(accumulate), *parts))[0]

    def finetune_step(carry, key, masks, batch, weights, step, rate):
        (params, batch_stats), opt_state = carry
        key = jax.random.fold_in(key, step)
        if sample_fn is not None:
            draw_key, key = jax.random.split(key)
            batch, weights = sample_fn(draw_key, batch, weights)
        # Shares of the whole batch, so that the losses of its parts add up to its mean.
        shares = weights / jnp.maximum(jnp.sum(weights), 1)
        add_up = grad_fn if accumulate == 1 else sum_parts
        loss, grads = add_up(params, batch_stats, key, batch, shares)
        # Moments of masked gradients are 0, so pruned weights stay exactly 0; and they are masked
        # before they are clipped, since the norm is that of the weights that are left.
        updates, opt_state = tx.update(apply_masks(grads, masks), opt_state, params)
        params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, params, updates)
        return (Variables(params=params, batch_stats=batch_stats), opt_state), loss

    return finetune_step


def make_finetune_fn(
    apply_fn,
    loss_fn: LossFn,
    *,
    config: FinetuneConfig,
    num_levels: int,
    widths: Sequence[int],
    sample_fn: SampleFn | None = None,
) -> TrainFn:
    """Builds the refine operator F of a pre-trained encoder, for one replicate.

    Args:
      apply_fn: The network.
      loss_fn: One of `imp_rg.imp.losses.LOSSES`.
      config: Epochs, batches, learning rate.
      num_levels: Of the run, the dense one included; the schedule ``run`` spans them.
      widths: To which inputs are padded, see `bucket_widths`.
      sample_fn: What a step draws of its batch, see `imp_rg.imp.losses.make_mask_fn`.

    Returns:
      `train_fn(key, variables, masks, data, *, start=None, stop=None, on_progress=None)`, with
      `data` tokens and labels. Runs the steps [start, stop), by default all of a level, from a
      fresh optimizer; not traceable.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3 (operator F); Chen et al., arXiv:2007.12223, Sec. 3.
    """
    tx = make_adam(config)
    finetune_step = make_finetune_step(
        apply_fn, loss_fn, tx, accumulate=config.accumulate, sample_fn=sample_fn
    )
    step_fn = jax.jit(finetune_step, donate_argnums=0)
    num_spanned = 1 if config.schedule == "level" else num_levels

    @jax.jit
    def begin(variables, masks):
        params = apply_masks(variables.params, masks)
        return Variables(params=params, batch_stats=variables.batch_stats), tx.init(params)

    def train_fn(
        key, variables, masks, data, *, start=None, stop=None, on_progress: Progress | None = None
    ):
        data = jax.device_get(data)
        level_steps = config.level_steps(len(data.y))
        first, last = start or 0, level_steps if stop is None else stop
        order_key, dropout_key = _split(key)
        plan = plan_level(order_key, data.x.length, config, widths)
        carry, losses = begin(variables, masks), []
        for step in range(first, last):
            batch, weights = _cut(data, plan[step]), plan[step].weights
            rate = linear_decay(step, num_spanned * level_steps, config.learning_rate)
            carry, loss = step_fn(carry, dropout_key, masks, batch, weights, step, rate)
            losses.append(loss)
            is_slice = (step + 1 - first) % STEPS_PER_SLICE == 0 or step + 1 == last
            if is_slice and on_progress is not None:
                on_progress(step + 1, float(loss))
        # On the host: a stack of arrays compiles a program as long as their number.
        loss = jnp.asarray(np.stack(jax.device_get(losses)))
        return carry[0], TrainInfo(loss=loss, is_finite=jnp.all(jnp.isfinite(loss)))

    return train_fn


def _split(key: Key) -> tuple[Key, Key]:
    """Keys of data order and dropout; the latter of the generator that is fast on a CPU."""
    order_key, dropout_key = jax.random.split(key)
    words = jax.random.bits(dropout_key, (4,), jnp.uint32)
    return order_key, jax.random.wrap_key_data(words, impl="rbg")


def _cut(data: Any, batch: TextBatch) -> Batch:
    """The examples of one step, as narrow as they may be."""
    return Batch(x=data.x[batch.rows].narrow(batch.width), y=data.y[batch.rows])


def make_rewind_fn(config: FinetuneConfig, prunable: tuple[bool, ...]) -> RewindFn:
    """Builds what a level starts from.

    Args:
      config: Scope, and whether the head goes back.
      prunable: For each leaf in tree order, whether it can be pruned.

    Returns:
      `rewind_fn(trained, rewind)`, variables whose every leaf is one of the two, bit for bit.

    References:
      Chen et al., arXiv:2007.12223, Sec. 3: in their code the encoder goes back, the head does not.
    """

    def rewind_fn(trained: Variables, rewind: Variables) -> Variables:
        leaves, structure = jax.tree.flatten(trained.params)
        goes_back = (
            config.reset_head if path.startswith(HEAD) else config.rewind_scope == "all_bert" or can
            for path, can in zip(leaf_paths(trained.params), prunable, strict=True)
        )
        pairs = zip(goes_back, leaves, jax.tree.leaves(rewind.params), strict=True)
        params = jax.tree.unflatten(structure, [old if back else new for back, new, old in pairs])
        return Variables(params=params, batch_stats=rewind.batch_stats)

    return rewind_fn
