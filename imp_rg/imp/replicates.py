"""The seed axis: one function for one replicate, run for all of them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import jax.numpy as jnp

Strategy = Literal["vmap", "threads", "loop"]


def num_usable_cores() -> int:
    """Cores this process may use (CPU affinity respected where the system tells)."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one tree with a leading seed axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """Inverse of `stack`."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, row) for row in zip(*leaves, strict=True)]


def map_replicates(fn: Callable[..., Any], strategy: Strategy) -> Callable[..., Any]:
    """Lifts `fn(replicate, *own, shared)` to a leading seed axis on `own` and on the result.

    ``vmap`` makes one jitted program of all replicates and needs a traceable `fn`. ``threads`` runs
    one thread a replicate, which fills the cores of a CPU while sharing one compiled step;
    ``loop`` runs one after another. Convolutions lose under vmap, because vmapped kernels turn
    them into grouped convolutions (jax-ml/jax#26568).

    Args:
      fn: Takes the replicate's index, its own trees and one tree that all replicates share.
      strategy: How the seed axis is run.

    Returns:
      `mapped(*own, shared)`, every tree of `own` stacked along a leading seed axis.

    References:
      House definition.
    """
    vmapped = jax.jit(lambda *args: jax.vmap(fn, in_axes=(0,) * (len(args) - 1) + (None,))(*args))

    def mapped(*args):
        *own, shared = args
        num_replicates = jax.tree.leaves(own[0])[0].shape[0]
        if strategy == "vmap":
            return vmapped(jnp.arange(num_replicates), *own, shared)
        rows = list(enumerate(zip(*(unstack(tree) for tree in own), strict=True)))
        if strategy == "loop" or num_replicates == 1:
            return stack([fn(i, *row, shared) for i, row in rows])
        is_x64 = jax.config.read("jax_enable_x64")

        def run(item):
            with jax.enable_x64(is_x64):  # a caller's context does not reach other threads
                return fn(item[0], *item[1], shared)

        with ThreadPoolExecutor(max_workers=num_replicates) as pool:
            return stack(list(pool.map(run, rows)))

    return mapped
