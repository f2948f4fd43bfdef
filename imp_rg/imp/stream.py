"""The refine operator F over a stream: data that do not fit on the device, and resuming in a level.

In: a step as for the other drivers and a `Stream` on the host. Out: F, with the same numbers for
the same batches. At any time one batch is trained on while the next is read and sent.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.config import PruneConfig, TrainConfig
from imp_rg.imp.drivers import (
    STEPS_PER_SLICE,
    BatchPlan,
    Progress,
    TrainInfo,
    cpu_compiler_options,
    steps_per_epoch,
)
from imp_rg.imp.execution import Execution
from imp_rg.imp.levels import Scheme, assemble_scheme
from imp_rg.imp.operator import start_state
from imp_rg.imp.prune import make_schedule
from imp_rg.imp.replicates import unstack
from imp_rg.imp.train import make_begin, make_optimizer, make_train_step
from imp_rg.pytree import from_flat, to_flat
from imp_rg.types import (
    ApplyFn,
    Batch,
    Float,
    Key,
    Masks,
    Stream,
    StreamBatch,
    TrainFn,
    Variables,
)

SAVE_EVERY = 600.0
"""Seconds between two snapshots."""

STREAMED = Execution("dispatch", "loop")
"""How a scheme is run whose data come from the host."""


@runtime_checkable
class Snapshots(Protocol):
    """Where a level leaves what it needs to go on; see `imp_rg.runs.snapshots`."""

    def save(self, name: str, flat: Mapping[str, np.ndarray]) -> None:
        """Keeps arrays under a name."""
        ...

    def load(self, name: str) -> Mapping[str, np.ndarray] | None:
        """What was kept under the name, None if nothing sound is there."""
        ...


def make_stream_train_fn(
    train_step: Callable[..., Any],
    begin: Callable[..., Any],
    *,
    config: TrainConfig,
    snapshots: Snapshots | None = None,
    save_every: float = SAVE_EVERY,
    place: Callable[[Any], Any] = jax.device_put,
) -> TrainFn:
    """Builds F for data on the host.

    Args:
      train_step: `(carry, key, masks, data, batch, step) -> (carry, loss)`, as for
        `imp_rg.imp.drivers.drive`; its data are one batch, in order.
      begin: `(variables, masks) -> carry` before the first step.
      config: Steps, batches.
      snapshots: Where to save now and then; without, a killed level starts over. A snapshot is
        named by all that its call's result depends on, so it is never taken for that of another
        level or replicate.
      save_every: Seconds between two snapshots.
      place: Sends a batch to the device or devices.

    Returns:
      `train_fn(key, variables, masks, data, *, start, stop, on_progress)` for a `Stream`; a call
      that goes on from a snapshot ends in the same bits as an uninterrupted one.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3 (operator F).
    """
    step_fn = jax.jit(
        _on_one_batch(train_step), donate_argnums=0, compiler_options=cpu_compiler_options()
    )
    begin_fn = jax.jit(begin)

    def train_fn(
        key, variables, masks, data, *, start=None, stop=None, on_progress: Progress | None = None
    ):
        start = config.first_step if start is None else start
        stop = config.num_steps if stop is None else stop
        steps_per_epoch(data.num_train, config)  # refuses a batch larger than the data
        keeper = _Keeper(snapshots, save_every, (key, variables, masks), (config, start, stop))
        carry, losses = keeper.restore(begin_fn(variables, masks))
        steps, (order_key, augment_key) = range(start + len(losses), stop), jax.random.split(key)
        batches, loss = _open(data, order_key, config, steps), None
        for step, batch in zip(steps, batches, strict=False):  # neither end is read past
            batch = place(batch)  # while the step before computes
            jax.block_until_ready(loss)  # so that no third batch is on the device
            carry, loss = step_fn(carry, augment_key, masks, batch, step)
            losses.append(loss)
            keeper.save_if_due(carry, losses)
            is_told = (step + 1 - start) % STEPS_PER_SLICE == 0 or step + 1 == stop
            if on_progress is not None and is_told:
                on_progress(step + 1, float(loss))
        loss = jnp.asarray(_on_host(losses))
        return carry[0], TrainInfo(loss=loss, is_finite=jnp.all(jnp.isfinite(loss)))

    return train_fn


def make_stream_measure_fn(
    apply_fn: ApplyFn, *, batch_size: int, place: Callable[[Any], Any] = jax.device_put
) -> Callable[[Variables, Stream], Float[np.ndarray, " seed"]]:
    """Builds the test accuracy in percent of all replicates; each image is read once for all.

    Args:
      apply_fn: The network.
      batch_size: Images a batch.
      place: Sends a batch to the device or devices.

    Returns:
      `measure(variables, data)`, variables with a leading seed axis; from exact counts.

    References:
      House definition.
    """

    @jax.jit
    def num_correct(variables, batch):
        logits, _ = apply_fn(variables, batch.x, is_training=False)
        return jnp.sum((jnp.argmax(logits, axis=-1) == batch.y) & (batch.weights > 0))

    def measure(variables, data):
        replicates = unstack(variables)
        correct = np.zeros(len(replicates), int)
        for batch in map(place, data.test_batches(batch_size)):
            correct += np.asarray(jax.device_get([num_correct(v, batch) for v in replicates]))
        return 100.0 * correct / data.num_test

    return measure


def make_stream_scheme(
    apply_fn: ApplyFn,
    *,
    blocks: BlockPartition,
    leaf_sizes: tuple[int, ...],
    num_examples: int,
    num_levels: int,
    prune_config: PruneConfig,
    train_config: TrainConfig,
    snapshots: Snapshots | None = None,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Scheme:
    """Builds M, F and T for a stream of images; replicates run one after another.

    Args:
      apply_fn: The network.
      blocks: Partition, which also says what is prunable.
      leaf_sizes: Number of weights of each leaf in tree order.
      num_examples: Of the training set.
      num_levels: The dense level included.
      prune_config: Of M.
      train_config: Of F.
      snapshots: As for `make_stream_train_fn`.
      on_progress: Called with (replicate, step, loss).

    Returns:
      The scheme, whose data are a `Stream`.

    Raises:
      ValueError: If a level would keep too few weights or a batch exceeds the data.
    """
    tx = make_optimizer(train_config)
    train_step = make_train_step(apply_fn, tx, config=train_config)
    return assemble_scheme(
        make_stream_train_fn(train_step, make_begin(tx), config=train_config, snapshots=snapshots),
        make_stream_measure_fn(apply_fn, batch_size=train_config.batch_size),
        start_fn=functools.partial(start_state, config=train_config),
        blocks=blocks,
        schedule=make_schedule(blocks, leaf_sizes, prune_config, num_levels=num_levels),
        execution=STREAMED,
        epoch_steps=steps_per_epoch(num_examples, train_config),
        data_order=train_config.data_order,
        on_progress=on_progress,
    )


def _on_one_batch(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """A step of the other drivers, whose data are the batch itself."""

    def step_on_batch(carry, key, masks, batch, step):
        plan = BatchPlan(indices=jnp.arange(batch.y.shape[0]), weights=batch.weights)
        return train_step(carry, key, masks, Batch(x=batch.x, y=batch.y), plan, step)

    return step_on_batch


def _open(data: Stream, key: Key, config: TrainConfig, steps: range) -> Iterator[StreamBatch]:
    return data.train_batches(
        int(jax.random.bits(key, dtype=jnp.uint32)),
        batch_size=config.batch_size,
        last_batch=config.last_batch,
        start=steps.start,
        stop=steps.stop,
    )


class _Keeper:
    """Saves where one call of F stands, and goes on from there."""

    def __init__(
        self, snapshots: Snapshots | None, save_every: float, inputs: tuple, settings: tuple
    ):
        self._snapshots, self._save_every = snapshots, save_every
        self._name = _name_call(inputs, settings) if snapshots else ""
        self._saved = time.monotonic()

    def restore(self, begun: Any) -> tuple[Any, list[Any]]:
        """Carry and losses so far; those of the beginning if nothing was kept."""
        kept = self._snapshots.load(self._name) if self._snapshots else None
        if kept is None:
            return begun, []
        carry, losses = from_flat(kept, (begun, 0))
        return jax.tree.map(jnp.asarray, carry), list(losses)

    def save_if_due(self, carry: Any, losses: list[Any]) -> None:
        """Keeps carry and losses now and then."""
        is_due = time.monotonic() - self._saved >= self._save_every
        if self._snapshots is not None and is_due:
            self._snapshots.save(self._name, to_flat((carry, _on_host(losses))))
            self._saved = time.monotonic()


def _name_call(inputs: tuple[Key, Variables, Masks], settings: tuple) -> str:
    key, variables, masks = inputs
    sha = hashlib.sha256(repr(settings).encode())
    for leaf in jax.device_get(jax.tree.leaves((jax.random.key_data(key), variables, masks))):
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()[:16]


def _on_host(losses: list[Any]) -> Float[np.ndarray, " step"]:
    return np.asarray(jax.device_get(losses), np.float32)
