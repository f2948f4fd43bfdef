"""ResNets for small images, depths 6 D + 2 (He et al. 2016, Sec. 4.2; as open_lth builds them).

A 3x3 stem, three stages of D basic blocks with 16, 32 and 64 channels, global average pooling and a
linear head. The first blocks of stages 2 and 3 halve the resolution.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from imp_rg.models.base import (
    KERNEL_INIT,
    Conv,
    GammaInit,
    Partitions,
    counting,
    make_norm_fn,
    through_stages,
)

Shortcut = Literal["projection", "pad"]

PRUNABLE = ("stem/kernel", "stage*/conv*/kernel", "stage*/shortcut/kernel", "head/kernel")
"""Every convolution and the head, as in the Elastic Lottery Ticket study; never norms or biases."""

STAGE_CHANNELS = (16, 32, 64)


class Block(nn.Module):
    """Basic residual block: two 3x3 convolutions, post-activation.

    Attributes:
      channels: Output channels.
      stride: Of the first convolution.
      shortcut: 1x1 convolution with norm (option B of He et al.), or subsampling and zero padding
        (option A), where the shape changes.
      gamma_init: Of the norms' scales.
      dtype: Of the computation.
    """

    channels: int
    stride: int
    shortcut: Shortcut
    gamma_init: GammaInit
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x, *, is_training: bool, mask=None):
        """Maps [example height width channel] to the block's resolution and channels."""
        norm = make_norm_fn(self.gamma_init, is_training, mask, self.dtype)
        y = nn.relu(norm("norm1")(Conv(self.channels, 3, self.stride, self.dtype, name="conv1")(x)))
        y = norm("norm2")(Conv(self.channels, 3, 1, self.dtype, name="conv2")(y))
        if x.shape != y.shape and self.shortcut == "projection":
            x = Conv(self.channels, 1, self.stride, self.dtype, name="shortcut")(x)
            x = norm("shortcut_norm")(x)
        elif x.shape != y.shape:
            extra = self.channels - x.shape[-1]
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        return nn.relu(x + y)


class ResNetCifar(nn.Module):
    """ResNet-(6 D + 2) for images of any size and channel count.

    Attributes:
      blocks_per_stage: D; 2, 3, 5, 7, 9 for ResNet-14, 20, 32, 44, 56.
      num_classes: Outputs.
      width: Multiplies the channels of all stages.
      shortcut: See `Block`.
      gamma_init: ``one``, or ``uniform`` on (0, 1) as open_lth draws it.
      dtype: Of the computation; parameters and statistics stay float32.
    """

    blocks_per_stage: int
    num_classes: int
    width: float = 1.0
    shortcut: Shortcut = "projection"
    gamma_init: GammaInit = "one"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x, *, is_training: bool = False, weights=None):
        """Logits [example num_classes] of normalised images [example height width channel].

        `weights` [example] of 0 leave examples out of the batch statistics.
        """
        mask = counting(weights)
        channels = [max(1, round(c * self.width)) for c in STAGE_CHANNELS]
        norm = make_norm_fn(self.gamma_init, is_training, mask, self.dtype)
        x = nn.relu(norm("stem_norm")(Conv(channels[0], 3, 1, self.dtype, name="stem")(x)))
        same = {"shortcut": self.shortcut, "gamma_init": self.gamma_init, "dtype": self.dtype}
        blocks = [partial(Block, channels=c, **same) for c in channels]
        depths = [self.blocks_per_stage] * len(blocks)
        x = through_stages(x, blocks, depths, is_training=is_training, mask=mask)
        return nn.Dense(self.num_classes, kernel_init=KERNEL_INIT, dtype=self.dtype, name="head")(x)


def partitions(blocks_per_stage: int, shortcut: Shortcut) -> Partitions:
    """Residual blocks, stages (the "residual blocks" of the paper's Sec. 5.1), or tensors."""
    stages = {f"stage{s}": (f"stage{s}",) for s in (1, 2, 3)}
    blocks = {
        f"stage{s}/block{b}": (f"stage{s}/block{b}",)
        for s in (1, 2, 3)
        for b in range(blocks_per_stage)
    }
    layers = ["stem"]
    for block in blocks:
        layers += [f"{block}/conv1", f"{block}/conv2"]
        if shortcut == "projection" and block in ("stage2/block0", "stage3/block0"):
            layers.append(f"{block}/shortcut")
    layers.append("head")
    return {"block": blocks, "stage": stages, "layer": {name: (name,) for name in layers}}
