"""A network without its classifier, followed by a projection head: what contrastive losses train.

In: a `Model` of the registry. Out: an `Encoder`, whose leaves have the paths they have in the
network, so that weights move from one to the other without renaming.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import variance_scaling

from imp_rg.blocks import BlockPartition, make_partition
from imp_rg.config import require
from imp_rg.data.augment import normalize
from imp_rg.models import Model
from imp_rg.types import Array, Float, Key, Params, Variables

PROJECTOR = "projector"
"""Where the leaves of the projection head lie; they are never pruned."""

HEAD = "head"

DENSE_INIT = variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within 1 / sqrt(fan_in), PyTorch's default for linear layers."""


class Projector(nn.Module):
    """Two layers with a ReLU between: as many hidden units as features, then the embedding.

    Attributes:
      num_outputs: Dimensions of the embedding.
      dtype: Of the computation; parameters stay float32.

    References:
      Chen et al., arXiv:2002.05709, Sec. 2.1; Chen et al., arXiv:2003.04297 (MoCo v2).
    """

    num_outputs: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features):
        """Maps [example feature] to [example num_outputs]."""
        width = features.shape[-1]
        x = nn.Dense(width, kernel_init=DENSE_INIT, dtype=self.dtype, name="dense0")(features)
        x = nn.relu(x)
        return nn.Dense(self.num_outputs, kernel_init=DENSE_INIT, dtype=self.dtype, name="dense1")(
            x
        )


@runtime_checkable
class EncodeFn(Protocol):
    """An encoder as a pure function of raw images."""

    def __call__(
        self, params: Params, batch_stats: Any, x: Array, *, is_training: bool
    ) -> tuple[Float[Array, "example feature"], Float[Array, "example dimension"], Any]:
        """Returns features, embeddings (not of length 1 yet) and the new batch statistics."""
        ...


def _skip_head(next_fn, args, kwargs, context):
    """The classifier hands on what it is given."""
    is_head = context.module.name == HEAD and context.method_name == "__call__"
    return args[0] if is_head else next_fn(*args, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A network whose classifier is replaced by a projection head.

    Attributes:
      model: The network.
      num_outputs: Dimensions of the embedding.
    """

    model: Model
    num_outputs: int = 128

    @property
    def projector(self) -> Projector:
        """The projection head, computing in the network's own precision."""
        # All networks of the registry have a dtype, which Flax's own class does not declare.
        return Projector(self.num_outputs, dtype=self.model.module.dtype)  # pyright: ignore[reportAttributeAccessIssue]

    def init(self, key: Key, input_shape: tuple[int, ...]) -> Variables:
        """Draws initial variables for images of shape (height, width, channel)."""
        network_key, projector_key = jax.random.split(key)
        network = self.model.init(network_key, input_shape)
        return self.attach(projector_key, network)

    def attach(self, key: Key, network: Variables, projector: Params | None = None) -> Variables:
        """A network's variables without its classifier, and a projection head: drawn or given."""
        params = {name: leaves for name, leaves in network.params.items() if name != HEAD}
        if projector is None:
            projector = self.init_projector(key, network)
        return Variables(params | {PROJECTOR: projector}, network.batch_stats)

    def init_projector(self, key: Key, network: Variables) -> Params:
        """Draws a projection head for the features that a network's classifier sees."""
        width = network.params[HEAD]["kernel"].shape[0]
        return self.projector.init(key, jnp.zeros((1, width)))["params"]

    def shapes(self, input_shape: tuple[int, ...]) -> Params:
        """Shapes of the params, without drawing them."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0), input_shape)).params

    def to_network(self, variables: Variables, head: Params) -> Variables:
        """Inverse of `attach`: the network's variables, with a classifier given."""
        params = {name: leaves for name, leaves in variables.params.items() if name != PROJECTOR}
        return Variables(params | {HEAD: head}, variables.batch_stats)

    def partition(
        self, blocks: str | Mapping[str, tuple[str, ...]], input_shape: tuple[int, ...]
    ) -> BlockPartition:
        """Resolves a partition of the network; neither head can be pruned.

        Raises:
          ValueError: If the name is unknown, a pattern matches nothing, or two blocks overlap.
        """
        model = self.model.with_dense_head()
        if isinstance(blocks, str):
            choices = ", ".join(model.partitions)
            require(blocks in model.partitions, "blocks", f"{model.name} has {choices}", blocks)
            blocks = model.partitions[blocks]
        return make_partition(self.shapes(input_shape), blocks, prunable=model.prunable)

    def make_encode_fn(
        self, mean: Float[np.ndarray, " channel"], std: Float[np.ndarray, " channel"]
    ) -> EncodeFn:
        """Binds the normalisation, so that the encoder takes raw pixels."""

        def encode_fn(params, batch_stats, x, *, is_training):
            x = normalize(x, mean, std)
            features, stats = self._features(params, batch_stats, x, is_training=is_training)
            embeddings: Any = self.projector.apply({"params": params[PROJECTOR]}, features)
            return features.astype(jnp.float32), embeddings.astype(jnp.float32), stats

        return encode_fn

    def _features(self, params: Params, batch_stats: Any, x: Array, *, is_training: bool):
        """What the classifier would see of normalised images, and new batch statistics."""
        network = {name: leaves for name, leaves in params.items() if name != PROJECTOR}
        with nn.intercept_methods(_skip_head):
            features, updated = self.model.module.apply(
                {"params": network, "batch_stats": batch_stats},
                x,
                is_training=is_training,
                mutable=["batch_stats"],
            )
        return features, updated.get("batch_stats", batch_stats)
