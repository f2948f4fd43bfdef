"""The door between the scheme (`imp_rg.imp`) and its reading (`imp_rg.rg`).

In: params and masks of one level. Out: what each block holds of the surviving weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.pytree import apply_masks, check_same_structure
from imp_rg.types import AnyArray, Array, Float, Int, Masks, Num, Params

ROW = 256
"""Partial sums run over at most this many terms, which keeps float32 sums of 1e8 terms exact to
1e-6 relative (a running sum would lose four digits)."""


class FlowPoint(NamedTuple):
    """What each block holds at one point of one level. Every field may carry leading axes.

    Attributes:
      magnitude: W_i, sum of abs(m theta) over the prunable tensors of block i, [block].
      surviving: Number of weights of block i that survive, [block].
      total: Sum of abs(m theta) over all weights of the network, prunable or not.
    """

    magnitude: Float[AnyArray, "*axes block"]
    surviving: Num[AnyArray, "*axes block"]
    total: Float[AnyArray, "*axes"]

    @property
    def magnitude_share(self) -> Float[AnyArray, "*axes block"]:
        """M_i, share of all prunable magnitude; sums to 1, NaN if nothing survives (Eq. 13)."""
        return self.magnitude / self.magnitude.sum(axis=-1, keepdims=True)

    @property
    def param_share(self) -> Float[AnyArray, "*axes block"]:
        """P_i, share of the surviving weight count; sums to 1 (Redman et al., Sec. 4)."""
        return self.surviving / self.surviving.sum(axis=-1, keepdims=True)

    @property
    def share_all(self) -> Float[AnyArray, "*axes block"]:
        """Share of the magnitude of all weights, never-pruned ones included."""
        return self.magnitude / self.total[..., None]

    def share_blocks(self, num_listed: int) -> Float[AnyArray, "*axes listed"]:
        """Share of the magnitude within the first `num_listed` blocks, ``rest`` left out."""
        listed = self.magnitude[..., :num_listed]
        return listed / listed.sum(axis=-1, keepdims=True)


class FlowTrajectory(NamedTuple):
    """The flow of a whole run, as host arrays: what `imp_rg.rg` and the tables read.

    Attributes:
      blocks: Partition.
      num_kept: Surviving prunable weights of each level, [level].
      points: For each of `POINTS` the flow, fields [seed level block]; NaN where a seed stopped or
        the point does not exist.
      nulls: For each null model its flow, fields [seed level block].
    """

    blocks: BlockPartition
    num_kept: Int[np.ndarray, " level"]
    points: dict[str, FlowPoint]
    nulls: dict[str, FlowPoint]

    @property
    def density(self) -> Float[np.ndarray, " level"]:
        """Kept fraction of the prunable weights."""
        return self.num_kept / sum(self.blocks.sizes)

    @property
    def scale_factor(self) -> Float[np.ndarray, " transition"]:
        """c(n) = density(n) / density(n+1) (Redman et al., App. A)."""
        return self.num_kept[:-1] / self.num_kept[1:]

    def until(self, level: int) -> "FlowTrajectory":
        """The levels 0 to this one."""

        def cut(points: dict[str, FlowPoint]) -> dict[str, FlowPoint]:
            return jax.tree.map(lambda x: x[:, : level + 1], points)

        num_kept = self.num_kept[: level + 1]
        return self._replace(num_kept=num_kept, points=cut(self.points), nulls=cut(self.nulls))


def flow_point(params: Params, masks: Masks, *, blocks: BlockPartition) -> FlowPoint:
    """Reads the flow: surviving magnitude and count of every block.

    W_i = sum over block i of abs(m theta). Written for one replicate: `jax.vmap` it over trees
    with a leading seed axis.

    Args:
      params: Weights of one level.
      masks: Same structure and leaf shapes as `params`; True keeps a weight.
      blocks: Static partition of the prunable leaves.

    Returns:
      A `FlowPoint` with `magnitude_share` (M_i, dimensionless, sums to 1) and `param_share` (P_i).

    Raises:
      ValueError: If masks and params differ in structure, shapes or dtype.

    References:
      Redman et al., arXiv:2110.03210, Eq. 13. The denominator is all prunable weights, because
      the paper's tables sum to zero only so.
    """
    check_same_structure(params, masks)
    leaves = zip(jax.tree.leaves(apply_masks(params, masks)), jax.tree.leaves(masks), strict=True)
    magnitudes, counts = zip(*(_sum_and_count(x, m) for x, m in leaves), strict=True)
    indices = [blocks.leaves_of(i) for i in range(len(blocks.names))]
    return FlowPoint(
        magnitude=jnp.stack([_sum_of(magnitudes, ks) for ks in indices]),
        surviving=jnp.stack([_sum_of(counts, ks) for ks in indices]),
        total=jnp.sum(jnp.stack(magnitudes)),
    )


def _sum_of(values: Sequence[Array], indices: tuple[int, ...]) -> Array:
    return jnp.sum(jnp.stack([values[k] for k in indices]))


def _sum_and_count(x: Array, mask: Array) -> tuple[Array, Array]:
    """Sum of abs(x) by rows, then rows of rows, and number of survivors, in one pass.

    One reduction with two results: as two, XLA's CPU compiler takes ten times as long for them.
    """
    rows = _by_rows(jnp.abs(x)), _by_rows(mask.astype(jnp.int32))
    zeros = tuple(jnp.zeros((), r.dtype) for r in rows)
    total, count = jax.lax.reduce(rows, zeros, _add_pairs, dimensions=(1,))
    while total.size > ROW:
        total = _by_rows(total).sum(axis=1)
    return total.sum(), count.sum(dtype=jnp.int32)


def _add_pairs(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return a[0] + b[0], a[1] + b[1]


def _by_rows(x: Array) -> Array:
    return jnp.pad(x.ravel(), (0, -x.size % ROW)).reshape(-1, ROW)
