"""How alike consecutive layers of an encoder are: the paper's own reading of a fixed point.

In: an encoder and inputs, or its hidden states and attention maps. Out: one number a layer. All
sums are float64 on the host.
"""

from typing import NamedTuple

import jax
import numpy as np

from imp_rg.config import require
from imp_rg.data.text.tokenize import Tokens
from imp_rg.models.bert import BertModel
from imp_rg.types import AnyArray, Bool, Float, Int, Params

BATCH_SIZE = 32
"""Inputs whose attention maps are in memory at a time."""


class LayerSimilarity(NamedTuple):
    """How alike each layer is to what comes before it.

    Attributes:
      cka: Of hidden states before and after the layer, over real tokens.
      cka_first: CKA over the first token of each input; NaN in the first layer, because all
        inputs begin alike.
      attention: Of attention maps of the layer before and of this one, mean over inputs; NaN in the
        first layer.
    """

    cka: Float[np.ndarray, " layer"]
    cka_first: Float[np.ndarray, " layer"]
    attention: Float[np.ndarray, " layer"]


def layer_similarity(model: BertModel, params: Params, tokens: Tokens) -> LayerSimilarity:
    """Measures how alike consecutive layers are on given inputs.

    Args:
      model: The encoder; its head does not matter.
      params: Its weights.
      tokens: Inputs, a few hundred.

    Returns:
      A `LayerSimilarity`.

    References:
      `layer_cka` and `attention_similarity`; Redman et al., arXiv:2110.03210, Sec. 5.2, explain
      small exponents of BERT by the likeness of its layers.
    """

    @jax.jit  # one program: the compiler runs the encoder once for both
    def observe(params, batch):
        return model.hidden_states(params, batch), model.attention_maps(params, batch)

    states, cosines = [], []
    for first in range(0, len(tokens), BATCH_SIZE):
        batch = tokens[first : first + BATCH_SIZE]
        hidden, maps = jax.device_get(observe(params, batch))
        states.append(hidden)
        cosines.append(attention_similarity(maps, batch.length))
    all_states = np.concatenate(states, axis=1)
    return LayerSimilarity(
        cka=layer_cka(all_states[:, real_tokens(tokens.length, tokens.shape[1])]),
        cka_first=layer_cka(all_states[:, :, 0]),
        attention=np.concatenate(cosines).mean(axis=0),
    )


def linear_cka(
    x: Float[AnyArray, "row width"], y: Float[AnyArray, "other_row other_width"]
) -> float:
    """Linear centred kernel alignment of two representations of the same inputs.

    |Y'X|^2 / (|X'X| |Y'Y|) with columns centred and Frobenius norms: in [0, 1], 1 for
    representations that agree up to rotation, reflection and scale.

    Args:
      x: One representation, a row an input.
      y: The other; its width may differ.

    Returns:
      The alignment; NaN if a representation is the same for all inputs.

    Raises:
      ValueError: If the numbers of rows differ.

    References:
      Kornblith et al., arXiv:1905.00414, Eq. 4 (feature form).
    """
    require(len(x) == len(y), "y", f"must have the {len(x)} rows of x", len(y))
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    if not (np.ptp(x, axis=0).any() and np.ptp(y, axis=0).any()):
        return float("nan")
    x, y = (z - z.mean(axis=0, keepdims=True) for z in (x, y))
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / norms)


def layer_cka(
    states: Float[AnyArray, "state row width"],
) -> Float[np.ndarray, " layer"]:
    """CKA of what goes into each layer with what comes out.

    Args:
      states: Output of the embeddings, then of each layer, as `BertModel.hidden_states` gives
        them; rows are real tokens, or the first token of each input.

    Returns:
      One value a layer: 1 for a layer that does no more than rotate and scale.

    References:
      Kornblith et al., arXiv:1905.00414; pairs of neighbours: house definition.
    """
    return np.array([linear_cka(a, b) for a, b in zip(states[:-1], states[1:], strict=True)])


def attention_similarity(
    maps: Float[AnyArray, "layer example head token token"], length: Int[AnyArray, " example"]
) -> Float[np.ndarray, "example layer"]:
    """Cosine of each layer's attention map with that of the layer before.

    Maps are averaged over heads, whose order means nothing, and taken over real tokens: as one
    vector an input. Entries are positive, so even unrelated maps are far from 0, and two uniform
    maps give 1.

    Args:
      maps: As `BertModel.attention_maps` gives them.
      length: Real tokens of each input.

    Returns:
      One value an input and layer in [0, 1]; NaN in the first layer, which has none before it.

    References:
      House definition.
    """
    mean = np.asarray(maps, np.float64).mean(axis=2)
    is_real = real_tokens(length, mean.shape[-1])
    mean = mean * (is_real[:, :, None] & is_real[:, None, :])
    before, after = mean[:-1], mean[1:]
    products = np.einsum("lnqk,lnqk->nl", before, after)
    norms = np.sqrt(np.einsum("lnqk,lnqk->nl", mean, mean))
    first = np.full((len(is_real), 1), np.nan)
    return np.concatenate([first, products / (norms[:, :-1] * norms[:, 1:])], axis=1)


def real_tokens(length: Int[AnyArray, " example"], width: int) -> Bool[np.ndarray, "example token"]:
    """Which tokens are no padding. House definition."""
    return np.arange(width)[None] < np.asarray(length)[:, None]
