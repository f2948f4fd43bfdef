"""Which examples a step sees, and how wide it is: length buckets, or one fixed width.

The number of steps depends on neither buckets nor lengths: what does not fill a batch of its width
goes into a wider one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from imp_rg.config import require
from imp_rg.types import Key


class TextBatch(NamedTuple):
    """One step.

    Attributes:
      rows: Of the data set, [batch].
      weights: 1 for an example, 0 where an incomplete batch is filled up, [batch].
      width: Tokens to which the inputs are padded.
    """

    rows: Int[np.ndarray, " batch"]
    weights: Float[np.ndarray, " batch"]
    width: int


def plan_epoch(
    key: Key | None,
    length: Int[np.ndarray, " example"],
    *,
    batch_size: int,
    widths: Sequence[int],
    keep_last: bool = True,
) -> list[TextBatch]:
    """Divides a data set into batches of inputs of similar length.

    Args:
      key: Shuffles examples within buckets, and batches; None keeps the order of the data, from
        narrow to wide, for evaluation.
      length: Tokens of each input.
      batch_size: Examples a batch.
      widths: Rising; an input goes into the smallest that holds it. One width is fixed padding.
      keep_last: Whether the examples left over at the end are filled up to a batch, or dropped.

    Returns:
      The batches in the order of the steps.

    Raises:
      ValueError: If the widths do not rise or an input is longer than the last, or if a batch is
        larger than the data and nothing would be kept.

    References:
      House definition.
    """
    rises = all(a < b for a, b in zip(widths, widths[1:], strict=False))
    require(len(widths) > 0 and rises, "widths", "must rise", tuple(widths))
    rule = f"must hold the longest input, {length.max()} tokens"
    require(length.max() <= widths[-1], "widths", rule, tuple(widths))
    require(batch_size >= 1, "batch_size", "must be at least 1", batch_size)
    rule = f"must not exceed the {len(length)} examples"
    require(keep_last or batch_size <= len(length), "batch_size", rule, batch_size)
    order, batch_order = np.arange(len(length)), None
    num_batches = -(-len(length) // batch_size) if keep_last else len(length) // batch_size
    if key is not None:
        row_key, batch_key = jax.random.split(key)
        order = np.asarray(jax.random.permutation(row_key, len(length)))
        batch_order = np.asarray(jax.random.permutation(batch_key, num_batches))
    buckets = np.searchsorted(widths, length[order])
    batches, left = [], order[:0]
    for bucket, width in enumerate(widths):
        rows = np.concatenate([left, order[buckets == bucket]])
        num_whole = len(rows) // batch_size * batch_size
        for whole in rows[:num_whole].reshape(-1, batch_size):
            batches.append(TextBatch(whole, np.ones(batch_size, np.float32), width))
        left = rows[num_whole:]
    if keep_last and len(left):
        weights = np.arange(batch_size) < len(left)
        rows = np.resize(left, batch_size)
        width = next(w for w in widths if w >= length[left].max())
        batches.append(TextBatch(rows, weights.astype(np.float32), width))
    return batches if batch_order is None else [batches[i] for i in batch_order]


def padding_waste(length: Int[np.ndarray, " example"], batches: Sequence[TextBatch]) -> float:
    """Share of all computed tokens that are padding, in [0, 1). House definition."""
    computed = sum(len(batch.rows) * batch.width for batch in batches)
    real = sum(float(np.sum(length[batch.rows] * batch.weights)) for batch in batches)
    return 1 - real / computed
