"""Scores that rank weights for the mask operator M; the lowest go first."""

import jax
import jax.numpy as jnp

from imp_rg.types import Key, Masks, Params, ScoreFn, Scores


def magnitude(key: Key, params: Params, masks: Masks) -> Scores:
    """abs(theta), the score of iterative magnitude pruning (Redman et al., Sec. 3)."""
    del key, masks
    return jax.tree.map(jnp.abs, params)


def random(key: Key, params: Params, masks: Masks) -> Scores:
    """Uniform scores, independent of the weights: the control that learns nothing."""
    del masks
    leaves, structure = jax.tree.flatten(params)
    keys = [jax.random.fold_in(key, k) for k in range(len(leaves))]
    scores = [jax.random.uniform(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, scores)


SCORES: dict[str, ScoreFn] = {"magnitude": magnitude, "random": random}
