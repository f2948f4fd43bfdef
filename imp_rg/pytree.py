"""Leaves by name: paths, selection by pattern, masks applied and counted."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.types import Array, Masks, Params


def leaf_paths(tree: Params) -> tuple[str, ...]:
    """Paths such as ``stage1/block0/conv1/kernel``, in the order of `jax.tree.leaves`.

    House definition.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)


def to_flat(tree: Any) -> dict[str, np.ndarray]:
    """A tree as a flat dict from leaf path to host array. House definition."""
    leaves = jax.device_get(jax.tree.leaves(tree))
    return {path: np.asarray(x) for path, x in zip(leaf_paths(tree), leaves, strict=True)}


def from_flat(flat: Mapping[str, Any], template: Any) -> Any:
    """Inverse of `to_flat`, for the structure of `template`.

    Raises:
      ValueError: If the names differ from the template's leaf paths.
    """
    paths = leaf_paths(template)
    strange = set(paths) ^ set(flat)
    if strange:
        raise ValueError(f"tree: leaves must match the template, {min(strange)!r} does not")
    return jax.tree.unflatten(jax.tree.structure(template), [flat[path] for path in paths])


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a leaf path matches any pattern.

    A pattern is a shell pattern for the whole path (``*`` also crosses ``/``), or a prefix that
    ends at a ``/``: ``stage1/block0`` selects everything below it. House definition.
    """
    return any(fnmatchcase(path, p) or path.startswith(p.rstrip("/") + "/") for p in patterns)


def check_same_structure(params: Params, masks: Masks) -> None:
    """Raises `ValueError` unless masks are bool and mirror the params leaf by leaf."""
    if jax.tree.structure(params) != jax.tree.structure(masks):
        raise ValueError("masks: must have the structure of params, got another tree")
    for path, p, m in zip(
        leaf_paths(params), jax.tree.leaves(params), jax.tree.leaves(masks), strict=True
    ):
        if p.shape != m.shape or m.dtype != bool:
            raise ValueError(
                f"masks: {path} must be bool of shape {p.shape}, got {m.dtype} {m.shape}"
            )


def ones_masks(params: Params) -> Masks:
    """Masks that keep every weight. House definition."""
    return jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)


def apply_masks(params: Params, masks: Masks) -> Params:
    """Weights under their masks (Eq. 13); pruned ones are exactly 0, even where not finite."""
    return jax.tree.map(lambda p, m: jnp.where(m, p, jnp.zeros((), p.dtype)), params, masks)


def num_kept(masks: Masks, prunable: tuple[bool, ...]) -> Array:
    """Number of prunable weights that survive, an int32 scalar."""
    leaves = jax.tree.leaves(masks)
    kept = [jnp.sum(m, dtype=jnp.int32) for m, p in zip(leaves, prunable, strict=True) if p]
    return jnp.sum(jnp.stack(kept))


def num_prunable(params: Params, prunable: tuple[bool, ...]) -> int:
    """Number of prunable weights of the dense network."""
    leaves = jax.tree.leaves(params)
    return sum(int(np.prod(p.shape)) for p, is_p in zip(leaves, prunable, strict=True) if is_p)


def is_nested(masks: Masks, previous: Masks) -> Array:
    """Whether `masks` keeps no weight that `previous` had pruned, a bool scalar."""
    pairs = zip(jax.tree.leaves(masks), jax.tree.leaves(previous), strict=True)
    return jnp.all(jnp.stack([jnp.all(jnp.logical_or(~m, before)) for m, before in pairs]))
