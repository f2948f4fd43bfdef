"""What the model files share: initializers, convolution, stages, batch norm, partitions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.nn.initializers import Initializer, variance_scaling

from imp_rg.models.conv import conv
from imp_rg.types import Array, Float

GammaInit = Literal["one", "uniform"]

KERNEL_INIT = variance_scaling(2.0, "fan_in", "normal")
"""Kaiming normal, std sqrt(2 / fan_in); JAX's own `he_normal` truncates the tails."""

Partitions = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Partition name (``block``, ``stage``, ``layer``) to block name to patterns of leaf paths."""


class Conv(nn.Module):
    """Convolution without bias, `imp_rg.models.conv.conv` with a kernel of its own."""

    channels: int
    size: int
    stride: int
    dtype: jax.typing.DTypeLike | None
    kernel_init: Initializer = KERNEL_INIT

    @nn.compact
    def __call__(self, x):
        """Maps [example height width channel] to every `stride`-th pixel."""
        shape = (self.size, self.size, x.shape[-1], self.channels)
        kernel = self.param("kernel", self.kernel_init, shape)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        return conv(x, kernel, strides=self.stride)


class Stage(nn.Module):
    """Residual blocks ``block0`` ... of one resolution.

    Attributes:
      make_block: From stride and name to a block.
      num_blocks: How many.
      stride: Of the first.
    """

    make_block: Callable[..., nn.Module]
    num_blocks: int
    stride: int

    @nn.compact
    def __call__(self, x, *, is_training: bool, mask=None):
        """Maps [example height width channel] through all blocks; only the first may stride."""
        for i in range(self.num_blocks):
            block = self.make_block(stride=self.stride if i == 0 else 1, name=f"block{i}")
            x = block(x, is_training=is_training, mask=mask)
        return x


def through_stages(
    x: Array,
    blocks: Sequence[Callable[..., nn.Module]],
    depths: Sequence[int],
    *,
    is_training: bool,
    mask: Array | None,
) -> Float[Array, "example channel"]:
    """Means over the pixels behind ``stage1`` ... of a ResNet, added to the module being called.

    Args:
      x: What the stem gives, [example height width channel].
      blocks: What makes the blocks of each stage; the first of a stage halves the resolution, but
        for that of the first stage.
      depths: How many blocks each stage has; as many stages as depths.
      is_training: As for `make_norm_fn`.
      mask: As for `make_norm_fn`.
    """
    for i, (make_block, depth) in enumerate(zip(blocks, depths, strict=False)):
        stage = Stage(make_block, depth, 1 if i == 0 else 2, name=f"stage{i + 1}")
        x = stage(x, is_training=is_training, mask=mask)
    return jnp.mean(x, axis=(1, 2))


def counting(weights: Array | None) -> Array | None:
    """Which examples count in batch statistics, [example 1 1 1]; None for all."""
    return None if weights is None else (weights > 0)[:, None, None, None]


def make_norm_fn(gamma_init: GammaInit, is_training: bool, mask, dtype) -> Callable:
    """Batch norm by name, with PyTorch's momentum and epsilon.

    Args:
      gamma_init: Scales of ``one``, or ``uniform`` on (0, 1).
      is_training: Whether the batch's statistics are used, or the running ones.
      mask: Examples that count in the batch statistics, [example 1 1 1] or None for all.
      dtype: Of the computation; parameters and statistics stay float32.

    Returns:
      A function that adds the norm of a given name to the module being called.
    """
    scale_init = nn.initializers.ones if gamma_init == "one" else jax.nn.initializers.uniform(1.0)

    def norm(name: str):
        module = nn.BatchNorm(
            use_running_average=not is_training,
            momentum=0.9,
            epsilon=1e-5,
            scale_init=scale_init,
            dtype=dtype,
            name=name,
        )
        return lambda x: module(x, mask=mask)

    return norm
