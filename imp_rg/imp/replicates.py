"""The seed axis: one function for one replicate, run for all of them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from imp_rg.imp.mesh import SEED, num_shards, over_seeds, place

Strategy = Literal["vmap", "threads", "loop"]


def num_usable_cores() -> int:
    """Cores this process may use (CPU affinity respected where the system tells)."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one tree with a leading seed axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def rows_of(tree: Any) -> Iterator[Any]:
    """Takes a stacked tree apart, one replicate at a time, so that one copy exists at a time."""
    leaves, structure = jax.tree.flatten(tree)
    # Keys at once, since to index an array of them twice looks like using one twice.
    columns = [list(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    for i in range(leaves[0].shape[0]):
        yield jax.tree.unflatten(structure, [column[i] for column in columns])


def unstack(tree: Any) -> list[Any]:
    """Inverse of `stack`."""
    return list(rows_of(tree))


def map_replicates(
    fn: Callable[..., Any], strategy: Strategy, mesh: Mesh | None = None
) -> Callable[..., Any]:
    """Lifts `fn(replicate, *own, shared)` to a leading seed axis on `own` and on the result.

    ``vmap`` makes one jitted program of all replicates and needs a traceable `fn`. ``threads`` runs
    one thread a replicate, which fills the cores of a CPU while sharing one compiled step;
    ``loop`` runs one after another. Convolutions lose under vmap, because vmapped kernels turn
    them into grouped convolutions (jax-ml/jax#26568).

    Args:
      fn: Takes the replicate's index, its own trees and one tree that all replicates share. Its
        own trees are cut out for it (but under vmap): it may donate them.
      strategy: How the seed axis is run.
      mesh: Devices to run on. Over ``seed`` each runs its share of the replicates by `strategy`
        (not threads) in one program of a traceable `fn`; over ``batch`` `fn` itself divides its
        work and `strategy` runs the replicates, each on all devices.

    Returns:
      `mapped(*own, shared)`, every tree of `own` stacked along a leading seed axis.

    References:
      House definition.
    """
    if mesh is not None and num_shards(mesh, SEED) > 1:
        return _map_over_devices(fn, strategy, mesh)
    vmapped = jax.jit(lambda *args: jax.vmap(fn, in_axes=(0,) * (len(args) - 1) + (None,))(*args))

    def mapped(*args):
        *own, shared = place(args, mesh)
        num_replicates = jax.tree.leaves(own[0])[0].shape[0]
        if strategy == "vmap":
            return place(vmapped(np.arange(num_replicates), *own, shared), mesh)
        rows = enumerate(rows_of(tuple(own)))
        if strategy == "loop" or num_replicates == 1:
            return place(_stack_freeing([fn(i, *row, shared) for i, row in rows]), mesh)
        is_x64 = jax.config.read("jax_enable_x64")

        def run(item):
            with jax.enable_x64(is_x64):  # a caller's context does not reach other threads
                return fn(item[0], *item[1], shared)

        with ThreadPoolExecutor(max_workers=num_replicates) as pool:
            return _stack_freeing(list(pool.map(run, rows)))

    return mapped


def _stack_freeing(trees: list[Any]) -> Any:
    """`stack` that empties its list leaf by leaf: whole networks are not held twice."""
    structure = jax.tree.structure(trees[0])
    columns = [list(leaves) for leaves in zip(*map(jax.tree.leaves, trees), strict=True)]
    trees.clear()
    stacked = []
    for column in columns:
        stacked.append(jnp.stack(column))
        column.clear()
    return jax.tree.unflatten(structure, stacked)


def _map_over_devices(fn, strategy: Strategy, mesh: Mesh):
    def run_local(rows, own, shared):
        if strategy == "vmap":
            return jax.vmap(lambda i, own: fn(i, *own, shared))(rows, own)
        return jax.lax.map(lambda row: fn(row[0], *row[1], shared), (rows, own))

    divided = over_seeds(run_local, mesh)

    def mapped(*args):
        *own, shared = args
        num_replicates = jax.tree.leaves(own[0])[0].shape[0]
        return divided(np.arange(num_replicates), tuple(own), shared)

    return mapped
