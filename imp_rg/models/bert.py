"""BERT encoders with a head for one task (Devlin et al., arXiv:1810.04805).

Tokens in; logits of classes, a score, logits of where an answer starts and ends, or of the words
that were masked out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition, make_partition
from imp_rg.config import require, require_choice
from imp_rg.data.text.tasks import Kind
from imp_rg.data.text.tokenize import Tokens
from imp_rg.models.base import Partitions
from imp_rg.models.bert_config import BertConfig
from imp_rg.models.bert_layers import (
    Dtype,
    Embeddings,
    Layer,
    MaskedHead,
    attention_weights,
    dense,
)
from imp_rg.types import Array, Float, Key, Params, Variables

POOLER = "pooler/kernel"

PRUNABLE = ("layer*/kernel", POOLER)
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


class Bert(nn.Module):
    """Encoder, pooler and the head of a task.

    Attributes:
      config: Sizes.
      kind: What the head gives.
      num_outputs: Classes; 1 for regression, 2 for spans, 0 for masked words.
      dtype: Of the computation; parameters stay float32.
      remat: Whether training keeps only what enters each layer and computes the rest again.
    """

    config: BertConfig
    kind: Kind
    num_outputs: int
    dtype: Dtype = None
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: Tokens, *, is_training: bool = False):
        """Logits [example class], scores [example], or logits [example token 2] of start and end.

        Of masked words, logits [example token word].

        In training, dropout draws from the key named ``dropout``.
        """
        c = self.config

        def apply_layer(layer, x, length):
            return layer(x, length, is_training=is_training)

        apply_layer = nn.remat(apply_layer) if self.remat and is_training else apply_layer
        embeddings = Embeddings(c, self.dtype, name="embeddings")
        x = embeddings(tokens, is_training=is_training)
        for i in range(c.num_layers):
            x = apply_layer(Layer(c, self.dtype, name=f"layer{i}"), x, tokens.length)
        # Every kind has a pooler: it is pruned with the rest, and drops out where none is needed.
        pooled = jnp.tanh(dense(c, c.width, "pooler", self.dtype)(x[:, 0]))
        if self.kind == "masked":
            head = MaskedHead(c, self.dtype, name="head")
            return head(x, embeddings.variables["params"]["word"])
        dropout = nn.Dropout(c.dropout, deterministic=not is_training)
        head = dense(c, self.num_outputs, "head", self.dtype)
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

    def with_dense_pooler(self) -> "BertModel":
        """The same network whose pooler cannot be pruned.

        The pooler of an encoder that was trained without one is small: a common ranking removes
        it first, and then nothing that the head sees depends on the encoder.
        """
        tensors = {k: v for k, v in self.partitions["tensor"].items() if k != "pooler"}
        prunable = tuple(pattern for pattern in self.prunable if pattern != POOLER)
        return replace(self, prunable=prunable, partitions={**self.partitions, "tensor": tensors})

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

    def attention_maps(
        self, params: Params, tokens: Tokens
    ) -> Float[Array, "layer example head token token"]:
        """Weights by which each token attends to each, in every layer, without dropout."""
        state: Any = self.module.apply(
            {"params": params},
            tokens,
            capture_intermediates=lambda module, _: module.name in ("query", "key"),
            mutable=["intermediates"],
        )[1]

        def heads(layer, name):
            x = state["intermediates"][layer]["attention"][name]["__call__"][0]
            return x.reshape(*x.shape[:2], self.config.num_heads, -1)

        pairs = [(heads(layer, "query"), heads(layer, "key")) for layer in self.partitions["layer"]]
        return jnp.stack([attention_weights(*pair, jnp.asarray(tokens.length)) for pair in pairs])

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
    config: BertConfig,
    *,
    kind: Kind = "classification",
    num_outputs: int = 2,
    dtype: Dtype = None,
    remat: bool = False,
) -> BertModel:
    """Builds a BERT network for a kind of task.

    Args:
      config: Sizes of the encoder.
      kind: Of the head: classes from the pooled first token, a score from it, a start and an end
        logit from every token, or a logit for each word from every token.
      num_outputs: Of the head, see `imp_rg.data.text.tasks.Task.num_outputs`.
      dtype: Of the computation (bfloat16 on accelerators); parameters stay float32.
      remat: Whether training computes layers again on the way back instead of keeping what they
        hold: less memory, more time, the same numbers. A step of BERT-base on 32 inputs of 128
        tokens takes 2.4 GB with it and 7.4 GB without. On a CPU, XLA undoes it.

    Raises:
      ValueError: If the kind is unknown or does not have that many outputs.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 4.
    """
    require_choice("kind", kind, Kind)
    fixed = {"regression": 1, "span": 2, "masked": 0}
    least, most = (fixed[kind],) * 2 if kind in fixed else (2, np.inf)
    rule = f"must be {f'at least {least}' if most > least else least} for {kind}"
    require(least <= num_outputs <= most, "num_outputs", rule, num_outputs)
    return BertModel(
        module=Bert(config, kind, num_outputs, dtype, remat),
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
        "tensor": tensors | {"pooler": (POOLER,)},
    }
