"""How well an encoder tells images apart, measured without labels on held-out images.

In: variables and a data set. Out: percent. The views are the same at every call, so that levels
and epochs are compared on the same images.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.config import require
from imp_rg.data.views import ViewConfig, sample_pair
from imp_rg.imp.contrastive import enqueue, key_logits, unit_rows
from imp_rg.imp.contrastive_train import KEY_ENCODER, strip
from imp_rg.imp.replicates import map_replicates
from imp_rg.models.projector import EncodeFn
from imp_rg.types import Array, Batch, Float, Int, Key, Stream, Variables

MeasureFn = Callable[[Variables, Any], Float[np.ndarray, " seed"]]
"""From variables with a leading seed axis and a `Batch` or a `Stream` to a percentage per seed."""

VIEW_SEED = 0


def num_retrieved(features: Float[Array, "view feature"]) -> Int[Array, ""]:
    """Views whose nearest other view, by cosine, is of the same image.

    Args:
      features: First views of N images, then their second views, in the same order.

    Returns:
      A number from 0 to 2N.

    References:
      Chen et al., arXiv:2012.06908, App. A.2.
    """
    num_views = features.shape[0]
    units = unit_rows(features)
    similarity = jnp.matmul(units, units.T, precision="highest")
    similarity = jnp.where(jnp.eye(num_views, dtype=bool), -jnp.inf, similarity)
    partner = (jnp.arange(num_views) + num_views // 2) % num_views
    return jnp.sum(jnp.argmax(similarity, axis=1) == partner)


def make_retrieval_fn(
    encode_fn: EncodeFn, *, views: ViewConfig, peak: float, batch_size: int
) -> MeasureFn:
    """Builds the share of views that find their partner among the views of a batch.

    Features are those before the projection head, batch norm uses its running statistics. The
    larger the batch, the harder the task; an incomplete last batch is left out.

    Args:
      encode_fn: The encoder.
      views: What happens to an image.
      peak: Largest raw value of a pixel.
      batch_size: Images a batch, at most as many as there are.

    Returns:
      `measure(variables, data)` in percent, for variables with a leading seed axis.

    References:
      Chen et al., arXiv:2012.06908, App. A.2 (top-1; the study's metric of SimCLR).
    """

    @jax.jit
    def count(variables, x, rows, key):
        params, stats = strip(variables)
        pair = sample_pair(key, x[rows], config=views, peak=peak)
        features, _, _ = encode_fn(params, stats, pair, is_training=False)
        return num_retrieved(features)

    def percent(replicate, variables, data):
        del replicate
        size = min(batch_size, _num_images(data))
        require(size >= 2, "batch_size", "must leave 2 images to tell apart", size)
        counts = [count(variables, *batch) for batch in _batches(data, size)]
        return 100.0 * sum(map(int, counts)) / (2 * size * len(counts))

    return _for_all(percent)


def make_key_fn(
    encode_fn: EncodeFn, *, views: ViewConfig, peak: float, batch_size: int, queue_size: int
) -> MeasureFn:
    """Builds the share of queries that are nearer to their own key than to all of a queue.

    The queue starts as random directions at each call, as the study's does, and takes in the keys
    of one batch after the other; so a data set shorter than the queue is also told from noise.

    Args:
      encode_fn: The encoder.
      views: What happens to an image.
      peak: Largest raw value of a pixel.
      batch_size: Images a batch, at most as many as there are; an incomplete one is left out.
      queue_size: Negatives of a query.

    Returns:
      `measure(variables, data)` in percent, for variables with a leading seed axis.

    References:
      Chen et al., arXiv:2012.06908, released code (the metric of MoCo).
    """

    @jax.jit
    def count(variables, queue, x, rows, key):
        params, stats = strip(variables)
        encoder = variables.batch_stats[KEY_ENCODER]
        query_view, key_view = jnp.split(sample_pair(key, x[rows], config=views, peak=peak), 2)
        _, queries, _ = encode_fn(params, stats, query_view, is_training=False)
        _, keys, _ = encode_fn(
            encoder["params"], encoder["batch_stats"], key_view, is_training=False
        )
        keys = unit_rows(keys)
        logits = key_logits(unit_rows(queries), keys, queue)
        return jnp.sum(jnp.argmax(logits, axis=1) == 0), enqueue(queue, keys)

    def percent(replicate, variables, data):
        del replicate
        size = min(batch_size, _num_images(data))
        num_outputs = variables.params["projector"]["dense1"]["bias"].shape[0]
        queue_key = jax.random.key(VIEW_SEED + 1)
        queue = unit_rows(jax.random.normal(queue_key, (queue_size, num_outputs)))
        counts = []
        for batch in _batches(data, size):
            num_right, queue = count(variables, queue, *batch)
            counts.append(int(num_right))
        return 100.0 * sum(counts) / (size * len(counts))

    return _for_all(percent)


def _num_images(data: Batch | Stream) -> int:
    return data.num_test if isinstance(data, Stream) else len(data.x)


def _batches(data: Batch | Stream, size: int) -> Iterator[tuple[Array, np.ndarray, Key]]:
    """Images, rows of them and a key for each whole batch; of a stream its centres are cut."""
    key, starts = jax.random.key(VIEW_SEED), range(0, _num_images(data) - size + 1, size)
    if isinstance(data, Stream):
        images = ((jnp.asarray(batch.x), np.arange(size)) for batch in data.test_batches(size))
    else:
        images = ((data.x, np.arange(first, first + size)) for first in starts)
    for first, (x, rows) in zip(starts, images, strict=False):  # without an incomplete batch
        yield x, rows, jax.random.fold_in(key, first)


def _for_all(percent: Callable[..., float]) -> MeasureFn:
    mapped = map_replicates(lambda *args: jnp.asarray(percent(*args)), "loop")
    return lambda variables, data: np.asarray(mapped(variables, data), float)
