"""Modules of a BERT encoder: embeddings, attention, transformer layer, head for masked words."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from imp_rg.config import require
from imp_rg.data.text.tokenize import Tokens
from imp_rg.models.bert_config import BertConfig
from imp_rg.types import Array, Float, Int

Dtype = jax.typing.DTypeLike | None


def dense(config: BertConfig, num_outputs: int, name: str, dtype: Dtype) -> nn.Dense:
    """Dense layer with the initial weights of BERT. House definition."""
    init = nn.initializers.normal(config.init_std)
    return nn.Dense(num_outputs, kernel_init=init, dtype=dtype, name=name)


def norm(config: BertConfig, dtype: Dtype) -> nn.LayerNorm:
    """Layer norm, a module named ``norm``. House definition."""
    # The fast variance, E[x^2] - E[x]^2, costs digits that the pre-trained weights count on.
    return nn.LayerNorm(
        epsilon=config.norm_epsilon, use_fast_variance=False, dtype=dtype, name="norm"
    )


class Embeddings(nn.Module):
    """Sum of word, position and type embeddings, then norm and dropout."""

    config: BertConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, tokens: Tokens, *, is_training: bool):
        """Hidden states [example token width]."""
        c, num_tokens = self.config, tokens.shape[1]
        rule = f"must have at most {c.num_positions} tokens"
        require(num_tokens <= c.num_positions, "tokens", rule, num_tokens)
        sizes = {"word": c.num_words, "position": c.num_positions, "type": c.num_types}
        init = nn.initializers.normal(c.init_std)
        word, position, kind = (
            self.param(name, init, (size, c.width)) for name, size in sizes.items()
        )
        x = jnp.take(word, tokens.ids, axis=0) + jnp.take(kind, tokens.types, axis=0)
        x = norm(c, self.dtype)(x + position[None, :num_tokens])
        return nn.Dropout(c.dropout, deterministic=not is_training)(x)


class Attention(nn.Module):
    """Self-attention of every token to the real tokens, residual, norm."""

    config: BertConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x, length, *, is_training: bool):
        """Maps [example token width] to the same shape; `length` [example] counts real tokens."""
        c = self.config

        def heads(name):
            return dense(c, c.width, name, self.dtype)(x).reshape(*x.shape[:2], c.num_heads, -1)

        query, key, value = (heads(name) for name in ("query", "key", "value"))
        if is_training and c.attention_dropout > 0:
            # jax.nn.dot_product_attention has no dropout on the attention weights.
            weights = attention_weights(query, key, length)
            weights = nn.Dropout(c.attention_dropout, deterministic=False)(weights)
            y = jnp.einsum("bhqk,bkhw->bqhw", weights.astype(value.dtype), value)
        else:
            y = jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=length)
        y = dense(c, c.width, "output", self.dtype)(y.reshape(x.shape))
        y = nn.Dropout(c.dropout, deterministic=not is_training)(y)
        return norm(c, self.dtype)(x + y)


def attention_weights(
    query: Float[Array, "example token head width"],
    key: Float[Array, "example token head width"],
    length: Int[Array, " example"],
) -> Float[Array, "example head token token"]:
    """Softmax over the real tokens of scaled products, in at least 32 bits."""
    products = jnp.einsum("bqhw,bkhw->bhqk", query, key)
    products = products.astype(jnp.promote_types(products.dtype, jnp.float32))
    is_real = jnp.arange(key.shape[1])[None, :] < length[:, None]
    least = jnp.finfo(products.dtype).min
    products = jnp.where(is_real[:, None, None], products / np.sqrt(key.shape[-1]), least)
    return jax.nn.softmax(products)


class Layer(nn.Module):
    """Transformer layer: attention, then two dense layers with a GELU between them."""

    config: BertConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x, length, *, is_training: bool):
        """Maps [example token width] to the same shape; `length` [example] counts real tokens."""
        c = self.config
        x = Attention(c, self.dtype, name="attention")(x, length, is_training=is_training)
        y = dense(c, c.intermediate_width, "intermediate", self.dtype)(x)
        y = dense(c, c.width, "output", self.dtype)(jax.nn.gelu(y, approximate=False))
        y = nn.Dropout(c.dropout, deterministic=not is_training)(y)
        return norm(c, self.dtype)(x + y)


class MaskedHead(nn.Module):
    """Dense layer, GELU and norm, then a logit for each word by its own embedding."""

    config: BertConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x, word):
        """Maps [example token width] and embeddings [word width] to [example token word]."""
        c = self.config
        x = jax.nn.gelu(dense(c, c.width, "dense", self.dtype)(x), approximate=False)
        x = norm(c, self.dtype)(x)
        bias = self.param("bias", nn.initializers.zeros, (c.num_words,))
        x, word, bias = promote_dtype(x, word, bias, dtype=self.dtype)
        # Sums over a whole vocabulary need the digits of 32 bits, whatever the inputs have.
        num_type = jnp.promote_types(x.dtype, jnp.float32)
        y = jnp.matmul(x, word.T, preferred_element_type=num_type)
        return y + bias.astype(num_type)[None, None]
