"""What a network is trained to lower: one loss an example, by the kind of task.

In: outputs of the head, labels, tokens of each input. Out: losses [example].
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from imp_rg.data.text.masking import UNASKED, Masking, mask_tokens
from imp_rg.data.text.tasks import Kind
from imp_rg.types import Array, Batch, Float, Int, Key

LossFn = Callable[[Array, Array, Array], Array]
"""`(outputs, labels, length) -> losses`, one of `LOSSES`."""

SampleFn = Callable[[Key, Batch, Array], tuple[Batch, Array]]
"""`(key, batch, weights) -> (batch, weights)`: what a step draws of its batch."""


def classification_loss(
    logits: Float[Array, "example num_classes"],
    labels: Int[Array, " example"],
    length: Int[Array, " example"],
) -> Float[Array, " example"]:
    """Cross-entropy in nats."""
    del length
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def regression_loss(
    scores: Float[Array, " example"],
    labels: Float[Array, " example"],
    length: Int[Array, " example"],
) -> Float[Array, " example"]:
    """Squared error."""
    del length
    return jnp.square(scores - labels)


def span_loss(
    logits: Float[Array, "example token 2"],
    labels: Int[Array, "example 2"],
    length: Int[Array, " example"],
) -> Float[Array, " example"]:
    """Mean of the cross-entropies of start and end, in nats.

    Only real tokens can be chosen, so that the loss does not depend on the padding.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 4.2, whose code lets the padding be chosen, too.
    """
    is_real = jnp.arange(logits.shape[1])[None, :] < length[:, None]
    logits = jnp.where(is_real[:, :, None], logits, jnp.finfo(logits.dtype).min)
    losses = optax.softmax_cross_entropy_with_integer_labels(jnp.swapaxes(logits, 1, 2), labels)
    return jnp.mean(losses, axis=1)


def masked_loss(
    logits: Float[Array, "example token word"],
    labels: Int[Array, "example token"],
    length: Int[Array, " example"],
) -> Float[Array, " example"]:
    """Mean of the cross-entropies of the words to guess, in nats; 0 without any.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 3.1.
    """
    del length
    is_asked = labels != UNASKED
    words = jnp.where(is_asked, labels, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, words)
    return jnp.sum(losses * is_asked, axis=1) / jnp.maximum(jnp.sum(is_asked, axis=1), 1)


def make_mask_fn(masking: Masking) -> SampleFn:
    """Builds what masks the words of a batch.

    Args:
      masking: Of the vocabulary.

    Returns:
      `mask_fn(key, batch, weights)`, the batch with words hidden and the hidden ones as labels, and
      weights times the words to guess of each example: all words of a batch count the same.

    References:
      See `imp_rg.data.text.masking.mask_tokens`.
    """

    def mask_fn(key, batch, weights):
        tokens, labels = mask_tokens(key, batch.x, masking)
        return batch._replace(x=tokens, y=labels), weights * jnp.sum(labels != UNASKED, axis=1)

    return mask_fn


LOSSES: dict[Kind, LossFn] = {
    "classification": classification_loss,
    "regression": regression_loss,
    "span": span_loss,
    "masked": masked_loss,
}
