"""Losses of contrastive pre-training: NT-Xent of SimCLR, InfoNCE of MoCo with its queue.

In: embeddings of views. Out: losses in nats, pure functions that `imp_rg.imp.contrastive_train`
makes a refine operator of.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from imp_rg.config import require, require_choice
from imp_rg.types import Array, Float, Params

Reduction = Literal["mean_log", "log_mean"]


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """What is particular to a contrastive loss.

    Attributes:
      temperature: Divides the similarities.
      reduction: ``mean_log`` averages the logarithms of the ratios (Chen et al. 2020, Eq. 1);
        ``log_mean`` takes the logarithm of their average, as the code of the study of pre-trained
        tickets does. NT-Xent only.
      queue_size: Keys in the queue, a multiple of the batch. MoCo only.
      key_momentum: What the key encoder keeps of itself at a step. MoCo only.
    """

    temperature: float = 0.5
    reduction: Reduction = "mean_log"
    queue_size: int = 65536
    key_momentum: float = 0.999

    def __post_init__(self):
        require(self.temperature > 0, "temperature", "must be positive", self.temperature)
        require_choice("reduction", self.reduction, Reduction)
        require(self.queue_size >= 1, "queue_size", "must be at least 1", self.queue_size)
        is_inside = 0 <= self.key_momentum < 1
        require(is_inside, "key_momentum", "must lie in [0, 1)", self.key_momentum)

    def check_queue(self, batch_size: int) -> None:
        """Raises `ValueError` unless the queue holds whole batches."""
        rule = f"must be a multiple of the batch of {batch_size}"
        is_whole = self.queue_size % batch_size == 0
        require(is_whole, "queue_size", rule, self.queue_size)


def unit_rows(x: Float[Array, "row dimension"]) -> Float[Array, "row dimension"]:
    """Rows scaled to length 1; a row of zeros stays one, with a gradient of 0.

    House definition.
    """
    squares = jnp.sum(jnp.square(x), axis=1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def nt_xent(
    embeddings: Float[Array, "view dimension"],
    *,
    temperature: float,
    reduction: Reduction = "mean_log",
) -> Float[Array, ""]:
    """Normalised, temperature-scaled cross-entropy of 2N views of N images.

    l_i = -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t)), with cosine similarities s and j
    the other view of the image of i; the loss is the mean of all 2N.

    Args:
      embeddings: First views of N images, then their second views, in the same order.
      temperature: t.
      reduction: See `ContrastiveConfig`.

    Returns:
      The loss in nats.

    Raises:
      ValueError: If there are fewer than two images, or a view without its partner.

    References:
      Chen et al., arXiv:2002.05709, Eq. 1 and Algorithm 1.
    """
    num_views = embeddings.shape[0]
    rule = "must be at least 2 for NT-Xent, whose negatives are the other images"
    require(num_views >= 4, "batch_size", rule, num_views // 2)
    require(num_views % 2 == 0, "embeddings", "must be two for each image", num_views)
    units = unit_rows(embeddings)
    similarity = jnp.matmul(units, units.T, precision="highest") / temperature
    similarity = jnp.where(jnp.eye(num_views, dtype=bool), -jnp.inf, similarity)
    partner = jnp.roll(units, num_views // 2, axis=0)
    positive = jnp.sum(units * partner, axis=1) / temperature
    log_ratios = positive - jax.nn.logsumexp(similarity, axis=1)
    if reduction == "mean_log":
        return -jnp.mean(log_ratios)
    return jnp.log(num_views) - jax.nn.logsumexp(log_ratios)


def info_nce(
    queries: Float[Array, "example dimension"],
    keys: Float[Array, "example dimension"],
    queue: Float[Array, "negative dimension"],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Cross-entropy of picking a query's own key among the keys of a queue.

    l = -log(exp(q k+ / t) / (exp(q k+ / t) + sum over the queue of exp(q k / t))), averaged over
    the batch. No gradient goes to keys or queue.

    Args:
      queries: q, rows of length 1.
      keys: k+, rows of length 1, one for each query.
      queue: The negatives, rows of length 1.
      temperature: t.

    Returns:
      The loss in nats.

    References:
      He et al., arXiv:1911.05722, Eq. 1.
    """
    logits = key_logits(queries, *jax.lax.stop_gradient((keys, queue))) / temperature
    return -jnp.mean(jax.nn.log_softmax(logits, axis=1)[:, 0])


def key_logits(
    queries: Float[Array, "example dimension"],
    keys: Float[Array, "example dimension"],
    queue: Float[Array, "negative dimension"],
) -> Float[Array, "example candidate"]:
    """Similarities of queries to their own keys, in the first column, and to the queue.

    References:
      He et al., arXiv:1911.05722, Algorithm 1.
    """
    positive = jnp.sum(queries * keys, axis=1, keepdims=True)
    negative = jnp.matmul(queries, queue.T, precision="highest")
    return jnp.concatenate([positive, negative], axis=1)


def enqueue(
    queue: Float[Array, "negative dimension"], keys: Float[Array, "example dimension"]
) -> Float[Array, "negative dimension"]:
    """First in, first out: the oldest keys make room at the front for new ones at the end.

    References:
      He et al., arXiv:1911.05722, Sec. 3.2.
    """
    return jnp.concatenate([queue[keys.shape[0] :], keys])


def move_average(average: Params, new: Params, momentum: float) -> Params:
    """Moves an average towards new values: momentum * average + (1 - momentum) * new.

    References:
      He et al., arXiv:1911.05722, Eq. 2.
    """
    return jax.tree.map(lambda a, n: momentum * a + (1.0 - momentum) * n, average, new)
