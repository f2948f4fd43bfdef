"""BERT encoders with a head for one task (Devlin et al., arXiv:1810.04805).

Tokens in; logits of classes, a score, or logits of where an answer starts and ends out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition, make_partition
from imp_rg.config import require, require_choice
from imp_rg.data.text.tasks import Kind
from imp_rg.data.text.tokenise import Tokens
from imp_rg.models.base import Partitions
from imp_rg.models.bert_config import BertConfig
from imp_rg.types import Array, Float, Int, Key, Params, Variables

PRUNABLE = ("layer*/kernel", "pooler/kernel")
"""Matrices of the layers and the pooler, as in the study of BERT tickets; never embeddings, norms,
biases or the head. The pooler counts even for spans, which do not use it."""

KINDS = {
    "query": "attention/query",
    "key": "attention/key",
    "value": "attention/value",
    "attention_output": "attention/output",
    "intermediate": "intermediate",
    "output": "output",
}
"""The six matrices of a layer by the name of their kind."""

Dtype = jax.typing.DTypeLike | None


def _dense(config: BertConfig, num_outputs: int, name: str, dtype: Dtype) -> nn.Dense:
    init = nn.initializers.normal(config.init_std)
    return nn.Dense(num_outputs, kernel_init=init, dtype=dtype, name=name)


def _norm(config: BertConfig, dtype: Dtype) -> nn.LayerNorm:
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
        x = _norm(c, self.dtype)(x + position[None, :num_tokens])
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
            return _dense(c, c.width, name, self.dtype)(x).reshape(*x.shape[:2], c.num_heads, -1)

        query, key, value = (heads(name) for name in ("query", "key", "value"))
        if is_training and c.attention_dropout > 0:
            # jax.nn.dot_product_attention has no dropout on the attention weights.
            weights = _attention_weights(query, key, length)
            weights = nn.Dropout(c.attention_dropout, deterministic=False)(weights)
            y = jnp.einsum("bhqk,bkhw->bqhw", weights.astype(value.dtype), value)
        else:
            y = jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=length)
        y = _dense(c, c.width, "output", self.dtype)(y.reshape(x.shape))
        y = nn.Dropout(c.dropout, deterministic=not is_training)(y)
        return _norm(c, self.dtype)(x + y)


def _attention_weights(
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
        y = _dense(c, c.intermediate_width, "intermediate", self.dtype)(x)
        y = _dense(c, c.width, "output", self.dtype)(jax.nn.gelu(y, approximate=False))
        y = nn.Dropout(c.dropout, deterministic=not is_training)(y)
        return _norm(c, self.dtype)(x + y)


class Bert(nn.Module):
    """Encoder, pooler and the head of a task.

    Attributes:
      config: Sizes.
      kind: What the head gives.
      num_outputs: Classes; 1 for regression, 2 for spans.
      dtype: Of the computation; parameters stay float32.
    """

    config: BertConfig
    kind: Kind
    num_outputs: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, tokens: Tokens, *, is_training: bool = False):
        """Logits [example class], scores [example], or logits [example token 2] of start and end.

        In training, dropout draws from the key named ``dropout``.
        """
        c = self.config
        x = Embeddings(c, self.dtype, name="embeddings")(tokens, is_training=is_training)
        for i in range(c.num_layers):
            layer = Layer(c, self.dtype, name=f"layer{i}")
            x = layer(x, tokens.length, is_training=is_training)
        # Spans have a pooler too: it is pruned with the rest, and drops out of the computation.
        pooled = jnp.tanh(_dense(c, c.width, "pooler", self.dtype)(x[:, 0]))
        dropout = nn.Dropout(c.dropout, deterministic=not is_training)
        head = _dense(c, self.num_outputs, "head", self.dtype)
        y = head(x) if self.kind == "span" else head(dropout(pooled))
        return y[:, 0] if self.kind == "regression" else y


@dataclass(frozen=True, kw_only=True)
class BertModel:
    """A BERT network, what of it can be pruned, and how it divides into blocks.

    Attributes:
      module: Flax Linen module of tokens.
      prunable: Patterns of the leaves that can be pruned.
      partitions: Named block partitions, as patterns.
    """

    module: Bert
    prunable: tuple[str, ...]
    partitions: Partitions

    @property
    def config(self) -> BertConfig:
        """Sizes of the encoder."""
        return self.module.config

    def init(self, key: Key) -> Variables:
        """Draws initial variables."""
        one = np.ones((1, 1), np.int32)
        tokens = Tokens(ids=one, types=np.zeros_like(one), length=one[0])
        # Compiled, since only the draws are kept of what a module does when it starts.
        params = jax.jit(self.module.init)(key, tokens)["params"]
        return Variables(params=params, batch_stats={})

    def shapes(self) -> Params:
        """Shapes of the params, without drawing them."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0))).params

    def make_apply_fn(self):
        """The network as a pure function, as `imp_rg.types.ApplyFn` with a key for dropout.

        Returns:
          `apply_fn(variables, tokens, *, is_training, weights=None, key=None)`, which returns
          outputs in at least 32 bits and the (empty) batch statistics. Tokens of examples do not
          mix, so `weights` make no difference.
        """

        def apply_fn(variables, tokens, *, is_training, weights=None, key=None):
            del weights
            is_random = is_training and max(self.config.dropout, self.config.attention_dropout) > 0
            require(key is not None or not is_random, "key", "must be given in training", None)
            rngs = None if key is None else {"dropout": key}
            params = {"params": variables.params}
            y: Any = self.module.apply(params, tokens, is_training=is_training, rngs=rngs)
            return y.astype(jnp.promote_types(y.dtype, jnp.float32)), variables.batch_stats

        return apply_fn

    def hidden_states(
        self, params: Params, tokens: Tokens
    ) -> Float[Array, "state example token width"]:
        """Output of the embeddings, then of each layer, without dropout."""
        state: Any = self.module.apply(
            {"params": params},
            tokens,
            capture_intermediates=lambda module, _: isinstance(module, Embeddings | Layer),
            mutable=["intermediates"],
        )[1]
        names = ["embeddings", *self.partitions["layer"]]
        return jnp.stack([state["intermediates"][name]["__call__"][0] for name in names])

    def partition(self, blocks: str | Mapping[str, tuple[str, ...]]) -> BlockPartition:
        """Resolves a partition by name, or builds one from patterns.

        Raises:
          ValueError: If the name is unknown, a pattern matches nothing, or two blocks overlap.
        """
        if isinstance(blocks, str):
            choices = ", ".join(self.partitions)
            require(blocks in self.partitions, "blocks", f"must be one of {choices}", blocks)
            blocks = self.partitions[blocks]
        return make_partition(self.shapes(), blocks, prunable=self.prunable)


def make_bert(
    config: BertConfig, *, kind: Kind = "classification", num_outputs: int = 2, dtype: Dtype = None
) -> BertModel:
    """Builds a BERT network for a kind of task.

    Args:
      config: Sizes of the encoder.
      kind: Of the head: classes from the pooled first token, a score from it, or a start and an
        end logit from every token.
      num_outputs: Of the head, see `imp_rg.data.text.tasks.Task.num_outputs`.
      dtype: Of the computation (bfloat16 on accelerators); parameters stay float32.

    Raises:
      ValueError: If the kind is unknown or does not have that many outputs.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 4.
    """
    require_choice("kind", kind, Kind)
    least, most = {"classification": (2, np.inf), "regression": (1, 1), "span": (2, 2)}[kind]
    rule = f"must be {f'at least {least}' if most > least else least} for {kind}"
    require(least <= num_outputs <= most, "num_outputs", rule, num_outputs)
    return BertModel(
        module=Bert(config, kind, num_outputs, dtype),
        prunable=PRUNABLE,
        partitions=partitions(config.num_layers),
    )


def partitions(num_layers: int) -> Partitions:
    """Layers (the blocks of the paper's Sec. 5.2), kinds of matrices, or single matrices.

    The pooler is in no layer and of no kind.
    """
    layers = [f"layer{i}" for i in range(num_layers)]
    # Whole paths, since the pattern "layer*/output" would also match the attention's output.
    kinds = {kind: tuple(f"{layer}/{k}/kernel" for layer in layers) for kind, k in KINDS.items()}
    tensors = {
        f"{layer}/{kind}": (f"{layer}/{k}/kernel",) for layer in layers for kind, k in KINDS.items()
    }
    return {
        "layer": {layer: (layer,) for layer in layers},
        "kind": kinds,
        "tensor": tensors | {"pooler": ("pooler/kernel",)},
    }
