"""Is IMP an RG scheme? The properties of the paper's Sec. 3.2 as checks that can fail.

In: operators, masks, scores. Out: facts. The projection operator of T is a Kronecker delta: P(a, b)
is 1 if b = T a, else 0, so that P >= 0 holds by its form; that sum P = 1 says that T a is one
state: the same key, data order and device must give the same bits. P respects the symmetry of the
system if M treats weights alike whatever their place, and as long as no layer is empty. That
exponents do not depend on c needs M o M = M at c^2, which holds to the bit as long as nothing is
refined in between.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.config import require
from imp_rg.pytree import to_flat
from imp_rg.types import Float, Int, Key, Masks, Scores

PruneFn = Callable[..., Masks]


def differing_leaves(a: Any, b: Any) -> tuple[str, ...]:
    """Names of the leaves of two trees whose bits differ.

    NaN equals a NaN of the same bits, and 0 differs from -0.

    Args:
      a: A tree of arrays.
      b: Another of the same structure.

    Returns:
      Leaf paths in tree order; empty if the trees are equal.

    Raises:
      ValueError: If the structures differ.

    References:
      House definition.
    """
    if jax.tree.structure(a) != jax.tree.structure(b):
        raise ValueError("b: must have the structure of a, got another tree")
    a, b = to_flat(a), to_flat(b)
    return tuple(name for name in a if _bits(a[name]) != _bits(b[name]))


def outcome_shares(outcomes: Sequence[Any]) -> Float[np.ndarray, " outcome"]:
    """P(a, b) over the states b that repeated applications of an operator to one a led to.

    Shares are positive and sum to one whatever the operator is; it is a projection only if there is
    one outcome, with P = 1.

    Args:
      outcomes: Trees of arrays of one structure, at least one.

    Returns:
      Share of each different outcome, the most frequent first.

    Raises:
      ValueError: If there is no outcome.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3.2, properties 1 and 3, and Eq. 12.
    """
    require(len(outcomes) > 0, "outcomes", "must hold at least one", 0)
    digests = [_digest(outcome) for outcome in outcomes]
    counts = np.unique_counts(np.array(digests)).counts
    return np.sort(counts)[::-1] / len(digests)


def collapsed_layers(masks: Masks, *, prunable: tuple[bool, ...]) -> tuple[str, ...]:
    """Names of the prunable layers that have no weight left.

    Up to there the loss keeps its form: it is that of the dense network at weights of which some
    are 0. An empty layer passes nothing on, and what lies before it drops out of the loss.

    Args:
      masks: Of one level.
      prunable: For each leaf in tree order, whether it can be pruned.

    Returns:
      Paths without ``/kernel``, in tree order.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3.2, property 2.
    """
    pairs = zip(to_flat(masks).items(), prunable, strict=True)
    return tuple(
        name.removesuffix("/kernel") for (name, mask), can in pairs if can and not mask.any()
    )


def prune_in_steps(
    scores: Scores,
    masks: Masks,
    *,
    prunable: tuple[bool, ...],
    num_remove: Int[np.ndarray, "step tensor_or_one"],
    prune_fn: PruneFn,
) -> Masks:
    """M o ... o M on one set of scores: nothing is refined between the prunings.

    Equal to one pruning of the summed counts to the bit, ties included: that is the composition law
    M(c) o M(c') = M(c c').

    Args:
      scores: One a weight.
      masks: Current masks.
      prunable: For each leaf in tree order, whether it can be pruned.
      num_remove: Counts of every step, as of `imp_rg.imp.prune.prune_schedule`.
      prune_fn: `prune_masks` or its twin for the host.

    Returns:
      Masks after the last step.

    References:
      Redman et al., arXiv:2110.03210, Sec. 4 and Eq. 14.
    """
    for count in num_remove:
        masks = prune_fn(scores, masks, prunable=prunable, num_remove=jnp.asarray(count))
    return masks


def commutes_with_permutation(
    key: Key,
    scores: Scores,
    masks: Masks,
    *,
    prunable: tuple[bool, ...],
    num_remove: Int[np.ndarray, " n"],
    prune_fn: PruneFn,
) -> bool:
    """Whether M after a random permutation within every tensor equals the permutation after M.

    The loss does not change when units of a hidden layer trade places; such an exchange permutes
    weights within tensors. Fails only where equal scores lie on both sides of the threshold, since
    ties are broken by place.

    Args:
      key: Draws the permutations.
      scores: One a weight.
      masks: Current masks.
      prunable: For each leaf in tree order, whether it can be pruned.
      num_remove: Counts, as of `imp_rg.imp.prune.prune_masks`.
      prune_fn: `prune_masks` or its twin for the host.

    Returns:
      Whether the masks agree in every weight.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3.2, property 2; as a check on M: house definition.
    """

    def permute(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        keys = [jax.random.fold_in(key, k) for k in range(len(leaves))]
        moved = [
            jax.random.permutation(k, x.ravel()).reshape(x.shape)
            for k, x in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, moved)

    options = {"prunable": prunable, "num_remove": jnp.asarray(num_remove)}
    before = prune_fn(permute(scores), permute(masks), **options)
    after = permute(prune_fn(scores, masks, **options))
    return not differing_leaves(before, after)


def _digest(tree: Any) -> str:
    sha = hashlib.sha256()
    for name, leaf in to_flat(tree).items():
        sha.update(f"{name} {leaf.dtype.str} {leaf.shape}\n".encode())
        sha.update(leaf.tobytes())
    return sha.hexdigest()


def _bits(leaf: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return leaf.dtype.str, leaf.shape, leaf.tobytes()
