"""Several devices: a mesh over the batch or over the seed axis, on one host or many.

In: how many devices. Out: a `jax.sharding.Mesh` with one axis, ``batch`` or ``seed``, or None for
one device, which leaves every program as it is without. Over ``batch``, the examples of each step
are divided over the devices and variables are copied to all of them; loss, gradients and batch
statistics are those of the whole batch. Over ``seed``, replicates are divided and nothing is
exchanged. Either way what comes out lies whole on every device, so that every host can read it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imp_rg.config import require

BATCH, SEED = "batch", "seed"
"""The one axis of a mesh."""


def start_distributed() -> None:
    """Joins this process to the others of the run, before JAX starts its backend.

    JAX reads from Slurm's variables (Open MPI's, a TPU's) who and where they are.

    Raises:
      ValueError: If no such scheduler started this process, or the others do not answer.

    References:
      House definition.
    """
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"distributed: needs processes started by Slurm or another scheduler that JAX knows; "
            f"{reason}"
        ) from error


def is_lead() -> bool:
    """Whether this process is the one that writes files and speaks. House definition."""
    return jax.process_index() == 0


def from_lead(payload: bytes) -> bytes:
    """What the lead passes, on every process: all of them must call it.

    What depends on files (is a run finished, where does it go on?) is decided so by one process.

    References:
      House definition.
    """
    if jax.process_count() == 1:
        return payload
    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(payload))))
    own = np.frombuffer(payload, np.uint8) if is_lead() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(own)).tobytes()


def lead_says(answer: bool) -> bool:
    """The lead's answer, on every process. House definition."""
    return bool(from_lead(bytes([answer]))[0])


def make_mesh(num_devices: int, *, num_seeds: int, batch_size: int) -> Mesh | None:
    """Chooses what is divided over the devices.

    Seeds, if each device gets equally many of them, since replicates need nothing of each other;
    otherwise the examples of each batch.

    Args:
      num_devices: Of all processes together.
      num_seeds: Replicates of the run.
      batch_size: Examples a step.

    Returns:
      The mesh, None for one device.

    Raises:
      ValueError: If so many devices are not there, or neither seeds nor batch can be divided.

    References:
      House definition.
    """
    present = jax.device_count()
    rule = f"must lie between 1 and the {present} that JAX finds"
    require(1 <= num_devices <= present, "devices", rule, num_devices)
    if jax.process_count() > 1:
        rule = f"must be the {present} of all {jax.process_count()} processes"
        require(num_devices == present, "devices", rule, num_devices)
    if num_devices == 1:
        return None
    rule = f"must divide {num_seeds} seeds or a batch of {batch_size} examples"
    can_divide = num_seeds % num_devices == 0 or batch_size % num_devices == 0
    require(can_divide, "devices", rule, num_devices)
    axis = SEED if num_seeds % num_devices == 0 else BATCH
    return Mesh(np.array(jax.devices()[:num_devices]), (axis,), axis_types=(AxisType.Auto,))


def num_shards(mesh: Mesh | None, axis: str) -> int:
    """In how many parts an axis is divided; 1 without a mesh or over the other axis."""
    return mesh.size if mesh is not None and mesh.axis_names == (axis,) else 1


def place(tree: Any, mesh: Mesh | None) -> Any:
    """Copies arrays whole to every device of a mesh; what lies there already stays.

    Every process must hold the same values. Without a mesh the tree comes back as it is.

    References:
      House definition.
    """
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: _place(x, whole), tree)


def _place(x: Any, whole: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array) and x.sharding.is_equivalent_to(whole, x.ndim):
        return x
    if whole.is_fully_addressable:
        return jax.device_put(x, whole)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        words = _place(jax.random.key_data(x), whole)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Divides the leading axis over the devices, inside a jitted function.

    Without a mesh over the batch the tree comes back as it is.

    References:
      House definition.
    """
    return _constrain(tree, mesh, PartitionSpec(BATCH))


def over_batch(train_step: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """Divides the work of one step over the devices by dividing its batch.

    Whatever the step gathers by the indices of its batch is divided with them; carry and loss come
    out whole.

    Args:
      train_step: `(carry, key, masks, data, batch, step) -> (carry, loss)`.
      mesh: Of the run.

    Returns:
      A step of the same kind; `train_step` itself without a mesh over the batch.

    References:
      House definition.
    """
    if num_shards(mesh, BATCH) == 1:
        return train_step

    def divided_step(carry, key, masks, data, batch, step):
        batch = shard_batch(batch, mesh)
        return _constrain(train_step(carry, key, masks, data, batch, step), mesh, PartitionSpec())

    return divided_step


def _constrain(tree: Any, mesh: Mesh | None, spec: PartitionSpec) -> Any:
    if mesh is None or mesh.axis_names != (BATCH,):
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, spec))


def over_seeds(fn: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Divides the seed axis of a jitted function over the devices.

    Args:
      fn: `(rows, own, shared) -> result`, traceable; `rows`, every leaf of `own` and of the result
        have a leading seed axis, of any length.
      mesh: Over ``seed``.

    Returns:
      A function of the same kind. Where the devices do not divide the seeds, the last seed is run
      again to fill up.

    References:
      House definition.
    """
    seeds, whole = PartitionSpec(SEED), PartitionSpec()
    # Scans start from constants that all devices share and carry on with their own.
    divided = jax.shard_map(
        fn, mesh=mesh, in_specs=(seeds, seeds, whole), out_specs=seeds, check_vma=False
    )
    divided = jax.jit(divided, out_shardings=NamedSharding(mesh, whole))

    def mapped(rows, own, shared):
        num, filled = len(rows), -(-len(rows) // mesh.size) * mesh.size
        if filled > num:
            chosen = np.minimum(np.arange(filled), num - 1)
            rows, own = jax.tree.map(lambda x: x[chosen], (rows, own))
        result = divided(*place((rows, own, shared), mesh))
        return result if filled == num else jax.tree.map(lambda x: x[:num], result)

    return mapped
