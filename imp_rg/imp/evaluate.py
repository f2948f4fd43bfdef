"""Accuracy on held-out data, in batches that fit a device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from imp_rg.imp.drivers import Driver
from imp_rg.imp.mesh import BATCH, num_shards, shard_batch
from imp_rg.imp.replicates import Strategy, map_replicates
from imp_rg.types import ApplyFn, Array, Batch, Float, Variables

MAX_BATCH = 1000


def make_count_fn(
    apply_fn: ApplyFn, *, driver: Driver, mesh: Mesh | None = None
) -> Callable[[Variables, Batch], Array]:
    """Builds the count of right answers over a whole data set, from running batch statistics.

    Args:
      apply_fn: The network.
      driver: ``scan`` is traceable; ``dispatch`` jits one batch and loops in Python.
      mesh: Devices; over ``batch`` the examples are divided over them.

    Returns:
      `num_correct(variables, data)`, an integer: exact, unlike a float32 percentage.

    References:
      House definition.
    """

    def batch_correct(variables, x, y, is_real):
        x, y, is_real = shard_batch((x, y, is_real), mesh)
        logits, _ = apply_fn(variables, x, is_training=False)
        return jnp.sum((jnp.argmax(logits, axis=-1) == y) & is_real)

    if driver == "dispatch":
        batch_correct = jax.jit(batch_correct)

    def num_correct(variables, data):
        num_examples = data.y.shape[0]
        num_batches = -(-num_examples // MAX_BATCH)
        shards = num_shards(mesh, BATCH)
        size = shards * -(-num_examples // (num_batches * shards))
        # Equal batches, so that one program serves all; the last is filled up by row 0.
        rows = jnp.arange(num_batches * size).reshape(num_batches, size)
        is_real = rows < num_examples
        rows = jnp.where(is_real, rows, 0)
        if driver == "dispatch":
            counts = [
                batch_correct(variables, data.x[r], data.y[r], real)
                for r, real in zip(rows, is_real, strict=True)
            ]
        else:
            counts = jax.lax.map(
                lambda batch: batch_correct(
                    variables, data.x[batch[0]], data.y[batch[0]], batch[1]
                ),
                (rows, is_real),
            )
        return jnp.sum(jnp.asarray(counts))

    # One program for the whole set; dispatched batches are programs of their own.
    return jax.jit(num_correct) if driver == "scan" else num_correct


def make_measure_fn(
    apply_fn: ApplyFn, *, driver: Driver, strategy: Strategy, mesh: Mesh | None = None
) -> Callable[[Variables, Batch], Float[np.ndarray, " seed"]]:
    """Builds the test accuracy in percent of all replicates, exact to the last bit of a float64.

    Args:
      apply_fn: The network.
      driver: As for `make_count_fn`.
      strategy: Of the seed axis.
      mesh: Devices.

    Returns:
      `measure(variables, data)`, variables with a leading seed axis.

    References:
      House definition.
    """
    count = make_count_fn(apply_fn, driver=driver, mesh=mesh)
    counts = map_replicates(lambda _, variables, data: count(variables, data), strategy, mesh)

    def measure(variables, data):
        return 100.0 * np.asarray(counts(variables, data), float) / data.y.shape[0]

    return measure
