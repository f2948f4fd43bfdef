"""Fully connected networks, LeNet-300-100 among them (LeCun et al. 1998; Frankle & Carbin 2019)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from imp_rg.models.base import KERNEL_INIT, Partitions

PRUNABLE = ("dense*/kernel", "head/kernel")


class Mlp(nn.Module):
    """ReLU layers of the given widths and a linear head.

    Attributes:
      widths: Units of each hidden layer.
      num_classes: Outputs.
      dtype: Of the computation; parameters stay float32.
    """

    widths: Sequence[int]
    num_classes: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x, *, is_training: bool = False, weights=None):
        """Logits [example num_classes] of normalised images [example height width channel]."""
        del is_training, weights
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths):
            x = nn.relu(
                nn.Dense(width, kernel_init=KERNEL_INIT, dtype=self.dtype, name=f"dense{i}")(x)
            )
        return nn.Dense(self.num_classes, kernel_init=KERNEL_INIT, dtype=self.dtype, name="head")(x)


def partitions(num_hidden: int) -> Partitions:
    """Blocks are layers; an MLP has no stages."""
    layers = {f"dense{i}": (f"dense{i}",) for i in range(num_hidden)} | {"head": ("head",)}
    return {"block": layers, "layer": layers}
