"""The two drivers of the refine operator F, and the batches they feed it, with equal numbers.

``scan`` is one traceable program for a whole level, for accelerators and networks without
convolutions. ``dispatch`` calls one jitted, donated step from Python, and reports on its way: XLA
optimises convolutions on a CPU better outside of a loop (jax-ml/jax#12868), even those of
`imp_rg.models.conv`, which lose little inside.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from imp_rg.config import TrainConfig, require
from imp_rg.imp.mesh import over_batch
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.types import Array, Float, Int, Key, TrainFn, is_accelerator

Driver = Literal["scan", "dispatch"]
Progress = Callable[[int, float], None]

STEPS_PER_SLICE = 10
"""Steps a dispatching replicate takes before it yields its core and reports."""

_cores = threading.BoundedSemaphore(num_usable_cores())


@functools.cache
def cpu_compiler_options() -> dict[str, str]:
    """Compiler options that make kernel gradients on a CPU twice as fast, where XLA knows them.

    By default XLA gives the kernel gradient of a convolution to a library that takes twice as long
    for it as XLA's own loop: a step of ResNet-20 at 32x32 takes 0.43-0.46 s so and 0.62-0.64 s by
    default (one replicate, 2 cores, jax 0.10.2).
    """
    if is_accelerator():
        return {}
    fusions = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    options = {"xla_cpu_experimental_ynn_fusion_type": fusions}
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(0.0).compile()
    except Exception:  # experimental: another XLA may not know it, and raises what it likes
        return {}
    return options


class TrainInfo(NamedTuple):
    """What was seen while training one level.

    Attributes:
      loss: Mean cross-entropy of each step's batch, nats, [step].
      is_finite: Whether every loss was finite.
    """

    loss: Float[Array, " step"]
    is_finite: Array


class BatchPlan(NamedTuple):
    """Which examples each step sees.

    Attributes:
      indices: Rows of the data set, [step batch].
      weights: 1 for an example, 0 where an incomplete last batch is filled up, [step batch].
    """

    indices: Int[Array, "step batch"]
    weights: Float[Array, "step batch"]


def steps_per_epoch(num_examples: int, config: TrainConfig) -> int:
    """Optimizer steps in one pass over the data.

    Raises:
      ValueError: If a batch is larger than the data.
    """
    require(
        config.batch_size <= num_examples,
        "batch_size",
        f"must not exceed the {num_examples} training examples",
        config.batch_size,
    )
    full, left = divmod(num_examples, config.batch_size)
    return full + (left > 0 and config.last_batch == "keep")


def plan_batches(
    key: Key, num_examples: int, config: TrainConfig, *, start: int, stop: int
) -> BatchPlan:
    """Draws the data order of steps [start, stop): a new permutation each epoch.

    Step s is batch s mod steps-per-epoch of its epoch, so a level that starts in the middle of the
    schedule skips the batches before it, as open_lth does.
    """
    per_epoch = steps_per_epoch(num_examples, config)
    padding = max(per_epoch * config.batch_size - num_examples, 0)

    def epoch_rows(epoch):
        order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
        order = jnp.concatenate([order, jnp.full(padding, -1, order.dtype)])
        return order[: per_epoch * config.batch_size].reshape(per_epoch, -1)

    first = start // per_epoch
    epochs = jnp.arange(first, -(-stop // per_epoch))
    rows = jax.vmap(epoch_rows)(epochs).reshape(-1, config.batch_size)
    rows = rows[start - first * per_epoch : stop - first * per_epoch]
    return BatchPlan(indices=jnp.maximum(rows, 0), weights=(rows >= 0).astype(jnp.float32))


def drive(
    train_step: Callable[..., Any],
    begin: Callable[..., Any],
    *,
    config: TrainConfig,
    driver: Driver,
    mesh: Mesh | None = None,
) -> TrainFn:
    """Repeats a step: the refine operator F of any loss.

    Args:
      train_step: `(carry, key, masks, data, batch, step) -> (carry, loss)`, pure; the carry is a
        pair whose first member is `Variables`, the batch one row of a `BatchPlan`.
      begin: `(variables, masks) -> carry` before the first step: masked, with a fresh optimizer.
      config: Steps, batches, order.
      driver: ``scan`` (traceable) or ``dispatch`` (a Python loop that jits its own step and takes
        an optional `on_progress(step, loss)`).
      mesh: Devices; over ``batch`` each step's examples are divided over them.

    Returns:
      `train_fn(key, variables, masks, data, *, start, stop) -> (variables, TrainInfo)`, which runs
      the steps [start, stop) of the schedule; by default those of a rewound level.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3 (operator F).
    """
    make_driver = _make_scan if driver == "scan" else _make_dispatch
    return make_driver(over_batch(train_step, mesh), begin, config)


def _segment(start: int | None, stop: int | None, config: TrainConfig) -> tuple[int, int]:
    return (
        config.first_step if start is None else start,
        config.num_steps if stop is None else stop,
    )


def _prepare(key, variables, masks, num_examples, start, stop, *, begin, config):
    """Carry before the first step, keys and data order of steps [start, stop)."""
    order_key, augment_key = jax.random.split(key)
    plan = plan_batches(order_key, num_examples, config, start=start, stop=stop)
    return begin(variables, masks), augment_key, plan


def _make_scan(train_step, begin, config: TrainConfig):
    def train_fn(key, variables, masks, data, *, start=None, stop=None):
        start, stop = _segment(start, stop, config)
        carry, augment_key, plan = _prepare(
            key, variables, masks, data.x.shape[0], start, stop, begin=begin, config=config
        )

        def body(carry, xs):
            return train_step(carry, augment_key, masks, data, *xs)

        (variables, _), loss = jax.lax.scan(body, carry, (plan, jnp.arange(start, stop)))
        return variables, TrainInfo(loss=loss, is_finite=jnp.all(jnp.isfinite(loss)))

    return train_fn


def _make_dispatch(train_step, begin, config: TrainConfig):
    prepare = jax.jit(
        functools.partial(_prepare, begin=begin, config=config), static_argnums=(3, 4, 5)
    )
    step_fn = jax.jit(train_step, donate_argnums=0, compiler_options=cpu_compiler_options())

    def train_fn(
        key, variables, masks, data, *, start=None, stop=None, on_progress: Progress | None = None
    ):
        start, stop = _segment(start, stop, config)
        carry, augment_key, plan = prepare(key, variables, masks, data.x.shape[0], start, stop)
        # Rows of a host array as arguments: slicing on the device would compile once per segment.
        plan, losses = jax.device_get(plan), []
        for first in range(start, stop, STEPS_PER_SLICE):
            last = min(first + STEPS_PER_SLICE, stop)
            with _cores:  # more replicates than cores take turns, so that none lags behind
                for step in range(first, last):
                    batch = jax.tree.map(lambda rows, row=step - start: rows[row], plan)
                    carry, loss = step_fn(carry, augment_key, masks, data, batch, step)
                    losses.append(loss)
                jax.block_until_ready(carry)
            if on_progress is not None:
                on_progress(last, float(losses[-1]))
        loss = jnp.stack(losses)
        return carry[0], TrainInfo(loss=loss, is_finite=jnp.all(jnp.isfinite(loss)))

    return train_fn
