"""Curvature of the training loss: Hessian products, top eigenvalues, trace, gradient energy.

In: a network, a point in weight space, data, and the weights to look at. Out: host arrays. The loss
is the mean cross-entropy over the whole data set, in nats, with running batch statistics.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

from imp_rg.config import require
from imp_rg.imp.drivers import cpu_compiler_options
from imp_rg.imp.evaluate import MAX_BATCH
from imp_rg.pytree import check_same_structure
from imp_rg.types import ApplyFn, Batch, Bool, Float, Key, Masks, Variables

Product = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Curvature:
    """Gradient and Hessian of the loss at one point, on the chosen weights alone.

    Attributes:
      gradient: Gradient g, in tree order, float64, [coordinate].
      product: v -> H v on the chosen weights, [coordinate] to float64 [coordinate]; the network
        computes in the precision of its weights.
      is_chosen: For each weight of the network in tree order, whether it is a coordinate.
      dtype: Precision of the network's weights.
    """

    gradient: Float[np.ndarray, " coordinate"]
    product: Product
    is_chosen: Bool[np.ndarray, " weight"]
    dtype: np.dtype

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the gradient on the chosen weights, nats per unit of weight."""
        return float(np.linalg.norm(self.gradient))


@dataclass(frozen=True, kw_only=True, eq=False)
class TopSpace:
    """The largest eigenvalues of a Hessian and the space of their eigenvectors.

    Attributes:
      eigenvalues: Descending, nats per squared unit of weight.
      eigenvectors: Orthonormal columns.
      residuals: L2 norm of H v - lambda v for each pair; an eigenvalue is exact within it.
    """

    eigenvalues: Float[np.ndarray, " k"]
    eigenvectors: Float[np.ndarray, "coordinate k"]
    residuals: Float[np.ndarray, " k"]


@dataclass(frozen=True, kw_only=True)
class TraceEstimate:
    """Trace of a Hessian by random probes.

    Attributes:
      trace: Mean over probes.
      standard_error: Standard deviation of the probes over the root of their number.
      num_probes: Number of probes.
    """

    trace: float
    standard_error: float
    num_probes: int


class PartEnergy(NamedTuple):
    """Gradient energy of one part of the weights, kept or pruned; with P the top projector.

    Attributes:
      of_weights: Share of the coordinates: what the next two would be by chance.
      of_gradient: abs(g_part)^2 / abs(g)^2.
      of_top: abs((P g)_part)^2 / abs(P g)^2, share of the energy in the top space.
      in_top: abs(P g_part)^2 / abs(g_part)^2, how far this part alone points into the top space.
    """

    of_weights: float
    of_gradient: float
    of_top: float
    in_top: float


@dataclass(frozen=True, kw_only=True)
class GradientEnergy:
    """Where the gradient lies: in the top Hessian space or not, on kept or on pruned weights.

    Attributes:
      gradient_norm: L2 norm of the gradient g.
      in_top: abs(P g)^2 / abs(g)^2; k / number of coordinates for a random direction.
      kept: Part carried by kept weights.
      pruned: Part carried by pruned weights; its `in_top` is NaN if none is pruned.
    """

    gradient_norm: float
    in_top: float
    kept: PartEnergy
    pruned: PartEnergy


def make_curvature(
    apply_fn: ApplyFn,
    variables: Variables,
    data: Batch,
    mask: Masks,
    *,
    max_batch: int = MAX_BATCH,
) -> Curvature:
    """Prepares gradient and Hessian products of the loss over a whole data set.

    Products pull v back through the gradient, because the convolutions of `imp_rg.models` have
    reverse-mode derivatives only. They run over equal slices of the data in fixed order and add up
    in float64.

    Args:
      apply_fn: The network.
      variables: The point. It is taken as it is: apply the masks first for that of a ticket, and
        leave them out to see the pruned weights' share of a dense network's gradient.
      data: All examples the loss is a mean over.
      mask: True where a weight is a coordinate: `surviving_prunable`, or all True.
      max_batch: Examples a slice at most.

    Returns:
      The curvature on as many coordinates as `mask` keeps.

    Raises:
      ValueError: If `mask` does not mirror the params or keeps nothing.

    References:
      Pearlmutter, Neural Computation 6 (1994), for exact Hessian-vector products.
    """
    check_same_structure(variables.params, mask)
    point, unravel = ravel_pytree(variables.params)
    is_chosen = flat_mask(mask)
    require(bool(is_chosen.any()), "mask", "must keep a weight", "none")
    num_examples = data.y.shape[0]

    def loss(flat, batch_stats, data, rows, weights):
        here = Variables(params=unravel(flat), batch_stats=batch_stats)
        logits, _ = apply_fn(here, data.x[rows], is_training=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.y[rows])
        return jnp.sum(losses * weights) / num_examples

    def gradient_and_product(flat, direction, *args):
        gradient, pullback = jax.vjp(lambda w: jax.grad(loss)(w, *args), flat)
        return jnp.stack([gradient, *pullback(direction)])

    # One program for both: the product computes the gradient on its way.
    slice_fn = jax.jit(gradient_and_product, compiler_options=cpu_compiler_options())

    def both(vector: np.ndarray | float) -> np.ndarray:
        direction, total = np.zeros(point.size, point.dtype), np.zeros((2, point.size))
        direction[is_chosen] = vector
        for rows, weights in data_slices(num_examples, max_batch):
            total += np.asarray(
                slice_fn(point, direction, variables.batch_stats, data, rows, weights)
            )
        return total[:, is_chosen]

    return Curvature(
        gradient=both(0.0)[0],
        product=lambda vector: both(vector)[1],
        is_chosen=is_chosen,
        dtype=np.dtype(point.dtype),
    )


def top_eigenpairs(curvature: Curvature, k: int) -> TopSpace:
    """The k largest (most positive) eigenvalues of the Hessian, by Lanczos iterations.

    Iterations stop at a residual of the root of the network's precision, relative to the
    eigenvalue; errors of eigenvalues are of second order in it. About max(2 k + 1, 20) vectors of
    8 bytes a coordinate are held, and two to ten times as many products computed.

    Args:
      curvature: From `make_curvature`.
      k: Number of eigenvalues, below that of coordinates.

    Returns:
      The eigenvalues with eigenvectors and residuals.

    Raises:
      ValueError: If `k` is out of range.

    References:
      Lehoucq, Sorensen and Yang, ARPACK Users' Guide (1998), through SciPy; Gur-Ari et al.,
      arXiv:1812.04754, for the top space.
    """
    size = curvature.gradient.size
    require(1 <= k < size, "k", f"must lie in [1, {size}), the number of coordinates", k)
    operator = LinearOperator((size, size), matvec=curvature.product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    tolerance = float(np.sqrt(np.finfo(curvature.dtype).eps))
    # A fixed start makes the answer the same each time; what it is does not matter.
    start = np.random.default_rng(0).standard_normal(size)
    found = eigsh(operator, k, which="LA", v0=start, tol=tolerance)  # pyright: ignore[reportArgumentType]
    values, vectors = found[0][::-1], found[1][:, ::-1]
    products = np.stack([curvature.product(v) for v in vectors.T], axis=1)
    residuals = np.linalg.norm(products - values * vectors, axis=0)
    return TopSpace(eigenvalues=values, eigenvectors=vectors, residuals=residuals)


def hessian_trace(key: Key, curvature: Curvature, *, num_probes: int = 30) -> TraceEstimate:
    """Trace of the Hessian on the chosen weights: mean of <v, H v> over random signs v.

    Args:
      key: Draws the probes.
      curvature: From `make_curvature`.
      num_probes: Probes, at least 2; each is one product.

    Returns:
      The estimate with its standard error.

    Raises:
      ValueError: If there are fewer than two probes.

    References:
      Hutchinson, Communications in Statistics 19 (1990).
    """
    require(num_probes >= 2, "num_probes", "must be at least 2", num_probes)
    samples = []
    for i in range(num_probes):
        signs = jax.random.rademacher(jax.random.fold_in(key, i), curvature.gradient.shape, int)
        probe = np.asarray(signs, np.float64)
        samples.append(probe @ curvature.product(probe))
    return TraceEstimate(
        trace=float(np.mean(samples)),
        standard_error=float(np.std(samples, ddof=1) / np.sqrt(num_probes)),
        num_probes=num_probes,
    )


def gradient_energy(curvature: Curvature, top: TopSpace, kept: Masks) -> GradientEnergy:
    """Splits the gradient's energy by the top Hessian space and by kept and pruned weights.

    Iterative magnitude pruning is seen as a projection on the weights that matter: if so, kept
    weights carry more of the energy in the top space than their share of all weights.

    Args:
      curvature: On weights of which `kept` prunes some, as those of the dense network.
      top: Of the same curvature.
      kept: Masks to judge; True keeps a weight.

    Returns:
      All shares, dimensionless, in [0, 1].

    Raises:
      ValueError: If `kept` has other weights than the network.

    References:
      Redman et al., arXiv:2110.03210, Sec. 3.1, for the picture; the shares are house definitions.
    """
    is_kept = flat_mask(kept)
    rule = f"must mirror the {curvature.is_chosen.size} weights of the network"
    require(is_kept.size == curvature.is_chosen.size, "kept", rule, is_kept.size)
    is_kept = is_kept[curvature.is_chosen]
    g, basis = curvature.gradient, top.eigenvectors
    projected = basis @ (basis.T @ g)

    def part(chosen: np.ndarray) -> PartEnergy:
        return PartEnergy(
            of_weights=float(chosen.mean()),
            of_gradient=_energy_ratio(g[chosen], g),
            of_top=_energy_ratio(projected[chosen], projected),
            in_top=_energy_ratio(basis[chosen].T @ g[chosen], g[chosen]),
        )

    return GradientEnergy(
        gradient_norm=curvature.gradient_norm,
        in_top=_energy_ratio(projected, g),
        kept=part(is_kept),
        pruned=part(~is_kept),
    )


def surviving_prunable(masks: Masks, prunable: tuple[bool, ...]) -> Masks:
    """Masks that are False on leaves that are not prunable. House definition."""
    leaves, structure = jax.tree.flatten(masks)
    pairs = zip(leaves, prunable, strict=True)
    return jax.tree.unflatten(structure, [m if can else jnp.zeros_like(m) for m, can in pairs])


def flat_mask(mask: Masks) -> Bool[np.ndarray, " weight"]:
    """All masks of a tree as one host array, in tree order. House definition."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.device_get(jax.tree.leaves(mask))])


def data_slices(num_examples: int, max_batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and weights of equal slices of a data set; row 0 with weight 0 fills up the last."""
    size = -(-num_examples // -(-num_examples // max_batch))
    for first in range(0, num_examples, size):
        rows = np.arange(first, first + size)
        is_real = rows < num_examples
        yield np.where(is_real, rows, 0), is_real.astype(np.float32)


def _energy_ratio(part: np.ndarray, whole: np.ndarray) -> float:
    """abs(part)^2 / abs(whole)^2, NaN if the whole is 0."""
    energy = float(whole @ whole)
    return float(part @ part) / energy if energy else float("nan")
