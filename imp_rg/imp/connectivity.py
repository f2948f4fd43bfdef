"""Linear mode connectivity: loss and error on the straight line between two solutions.

In: two sets of variables of one network, such as those of two levels under their masks, and data.
Out: loss and error along the line, and the barrier.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from imp_rg.config import require
from imp_rg.imp.evaluate import MAX_BATCH
from imp_rg.imp.hessian import data_slices
from imp_rg.types import ApplyFn, Batch, Float, Variables


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearPath:
    """What the straight line between two solutions costs.

    Attributes:
      alpha: Place on the line, 0 at the start and 1 at the end.
      loss: Mean cross-entropy, nats.
      error: Percent of examples classified wrongly.
    """

    alpha: Float[np.ndarray, " alpha"]
    loss: Float[np.ndarray, " alpha"]
    error: Float[np.ndarray, " alpha"]

    @property
    def loss_barrier(self) -> float:
        """`barrier_height` of the loss, nats."""
        return barrier_height(self.alpha, self.loss)

    @property
    def error_barrier(self) -> float:
        """`barrier_height` of the error, percentage points."""
        return barrier_height(self.alpha, self.error)


def barrier_height(
    alpha: Float[np.ndarray, " alpha"], values: Float[np.ndarray, " alpha"]
) -> float:
    """Largest height of a curve above the chord between its ends, in the units of `values`.

    Zero if the curve stays below the chord. Frankle et al. subtract the mean of the two ends in
    place of the chord, which is the same for ends of equal value.

    References:
      Frankle et al., arXiv:1912.05671, Sec. 2; the chord as in Entezari et al., arXiv:2110.06296.
    """
    chord = (1 - alpha) * values[0] + alpha * values[-1]
    return float(np.max(values - chord))


def linear_path(
    apply_fn: ApplyFn,
    start: Variables,
    end: Variables,
    data: Batch,
    *,
    num_points: int = 11,
    statistics_data: Batch | None = None,
    max_batch: int = MAX_BATCH,
) -> LinearPath:
    """Evaluates the networks on the straight line between two solutions.

    Weights pruned at both ends are zero along the whole line; apply the masks first.

    Args:
      apply_fn: The network.
      start: Variables at alpha = 0.
      end: Variables at alpha = 1.
      data: Examples to evaluate on.
      num_points: Points on the line, both ends included.
      statistics_data: Training examples on which the batch statistics are estimated afresh at every
        point, the ends too. Without it they are interpolated, and interpolated variances are those
        of no network on the line: a barrier then may be one of the statistics alone.
      max_batch: Examples a slice at most.

    Returns:
      The path.

    Raises:
      ValueError: If there are fewer than three points, or the two differ in structure.

    References:
      Frankle et al., arXiv:1912.05671, Sec. 2. Jordan et al., arXiv:2211.08403, for fresh batch
      statistics.
    """
    require(num_points >= 3, "num_points", "must be at least 3", num_points)
    if jax.tree.structure(start) != jax.tree.structure(end):
        raise ValueError("end: must have the structure of start, got another tree")
    alphas = np.linspace(0, 1, num_points)
    evaluate = _make_evaluate(apply_fn, data, max_batch)
    if statistics_data is not None:
        refresh = make_statistics_fn(apply_fn, statistics_data, max_batch=max_batch)
    points = []
    for alpha in alphas:
        here = jax.tree.map(lambda a, b, t=float(alpha): (1 - t) * a + t * b, start, end)
        if statistics_data is not None:
            here = refresh(here)
        points.append(evaluate(here))
    loss, error = np.array(points).T
    return LinearPath(alpha=alphas, loss=loss, error=error)


def make_statistics_fn(
    apply_fn: ApplyFn, data: Batch, *, max_batch: int = MAX_BATCH
) -> Callable[[Variables], Variables]:
    """Builds the estimate of batch statistics afresh: the mean over equal slices of the data.

    A network tells its statistics only through their running mean, m * old + (1 - m) * new, whose
    momentum m is read off from a pass with old statistics of 1 and one of 0. It must be the same in
    all layers. Slices must be large, and the data in no order: a mean of variances within slices
    knows nothing of the differences between them.

    Args:
      apply_fn: The network.
      data: Training examples.
      max_batch: Examples a slice at most.

    Returns:
      `refresh(variables) -> variables` with new statistics, which forgets the old ones; variables
      without statistics come back as they are.

    References:
      House definition.
    """
    slices = list(data_slices(data.y.shape[0], max_batch))

    @jax.jit
    def update(variables, value, data, rows, weights):
        old = jax.tree.map(lambda s: jnp.full_like(s, value), variables.batch_stats)
        here = variables._replace(batch_stats=old)
        return apply_fn(here, data.x[rows], is_training=True, weights=weights)[1]

    def refresh(variables: Variables) -> Variables:
        if not jax.tree.leaves(variables.batch_stats):
            return variables
        fresh = [update(variables, 0.0, data, *part) for part in slices]
        kept = jax.tree.map(jnp.subtract, update(variables, 1.0, data, *slices[0]), fresh[0])
        scale = (1 - jnp.median(ravel_pytree(kept)[0])) * data.y.shape[0]
        shares = [weights.sum() / scale for _, weights in slices]
        mean = jax.tree.map(
            lambda *parts: sum(w * s for w, s in zip(shares, parts, strict=True)), *fresh
        )
        return variables._replace(batch_stats=mean)

    return refresh


def _make_evaluate(apply_fn: ApplyFn, data: Batch, max_batch: int):
    """Builds variables -> (mean loss in nats, percent wrong) over the data."""
    num_examples = data.y.shape[0]

    @jax.jit
    def evaluate_slice(variables, data, rows, weights):
        logits, _ = apply_fn(variables, data.x[rows], is_training=False)
        y = data.y[rows]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        is_wrong = jnp.argmax(logits, axis=-1) != y
        return jnp.stack([jnp.sum(losses * weights), jnp.sum(is_wrong * weights)])

    def evaluate(variables: Variables) -> tuple[float, float]:
        slices = data_slices(num_examples, max_batch)
        sums = [np.asarray(evaluate_slice(variables, data, *s), float) for s in slices]
        loss, wrong = np.sum(sums, axis=0)
        return loss / num_examples, 100 * wrong / num_examples

    return evaluate
