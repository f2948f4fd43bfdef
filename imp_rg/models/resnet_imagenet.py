"""ResNet-18, 34 and 50 as torchvision builds them (He et al. 2016, Table 1; v1.5 bottlenecks).

A stem, four stages of basic or bottleneck blocks with 64, 128, 256 and 512 planes, global average
pooling and a linear head. Small images take a 3x3 stem at full resolution instead of the 7x7 one,
as in the study of pre-trained lottery tickets (Chen et al. 2021).
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import variance_scaling

from imp_rg.models.base import Conv, GammaInit, Partitions, counting, make_norm_fn, through_stages

Stem = Literal["cifar", "imagenet"]

PRUNABLE = ("stage*/conv*/kernel", "stage*/shortcut/kernel")
"""Every convolution but the stem, as in the vision study; never the head, norms or biases."""

STAGE_PLANES = (64, 128, 256, 512)

CONV_INIT = variance_scaling(2.0, "fan_out", "normal")

HEAD_INIT = variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within 1 / sqrt(fan_in), PyTorch's default for linear layers."""


class Block(nn.Module):
    """Residual block, post-activation: two 3x3 convolutions, or a bottleneck of three.

    The bottleneck (1x1, 3x3, 1x1) widens four-fold and strides in its 3x3 convolution. Where the
    shape changes, the shortcut is a 1x1 convolution with norm.

    Attributes:
      planes: Channels inside the block.
      stride: Of the block.
      is_bottleneck: Whether the block has three convolutions.
      gamma_init: Of the norms' scales.
      dtype: Of the computation.
    """

    planes: int
    stride: int
    is_bottleneck: bool
    gamma_init: GammaInit
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x, *, is_training: bool, mask=None):
        """Maps [example height width channel] to the block's resolution and channels."""
        norm = make_norm_fn(self.gamma_init, is_training, mask, self.dtype)

        def conv_norm(i: int, x, channels: int, size: int, stride: int = 1):
            x = Conv(channels, size, stride, self.dtype, CONV_INIT, name=f"conv{i}")(x)
            return norm(f"norm{i}")(x)

        if self.is_bottleneck:
            y = nn.relu(conv_norm(1, x, self.planes, 1))
            y = nn.relu(conv_norm(2, y, self.planes, 3, self.stride))
            y = conv_norm(3, y, 4 * self.planes, 1)
        else:
            y = nn.relu(conv_norm(1, x, self.planes, 3, self.stride))
            y = conv_norm(2, y, self.planes, 3)
        if self.stride != 1 or x.shape != y.shape:
            x = Conv(y.shape[-1], 1, self.stride, self.dtype, CONV_INIT, name="shortcut")(x)
            x = norm("shortcut_norm")(x)
        return nn.relu(x + y)


class ResNetImagenet(nn.Module):
    """Four-stage ResNet for images of any size and channel count.

    Attributes:
      blocks_per_stage: Residual blocks of each stage.
      is_bottleneck: See `Block`.
      num_classes: Outputs.
      width: Multiplies the planes of all stages and the channels of the stem.
      stem: ``cifar`` is one 3x3 convolution; ``imagenet`` a 7x7 one of stride 2, then 3x3
        max-pooling of stride 2.
      gamma_init: ``one``, or ``uniform`` on (0, 1).
      dtype: Of the computation; parameters and statistics stay float32.
    """

    blocks_per_stage: tuple[int, ...]
    is_bottleneck: bool
    num_classes: int
    width: float = 1.0
    stem: Stem = "cifar"
    gamma_init: GammaInit = "one"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x, *, is_training: bool = False, weights=None):
        """Logits [example num_classes] of normalised images [example height width channel].

        `weights` [example] of 0 leave examples out of the batch statistics.
        """
        mask = counting(weights)
        planes = [max(1, round(p * self.width)) for p in STAGE_PLANES]
        norm = make_norm_fn(self.gamma_init, is_training, mask, self.dtype)
        size, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        x = Conv(planes[0], size, stride, self.dtype, CONV_INIT, name="stem")(x)
        x = nn.relu(norm("stem_norm")(x))
        if self.stem == "imagenet":
            # PyTorch's padding; after the ReLU a zero never wins over a pixel.
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = nn.max_pool(x, (3, 3), strides=(2, 2))
        same = {"is_bottleneck": self.is_bottleneck, "gamma_init": self.gamma_init}
        blocks = [partial(Block, planes=p, dtype=self.dtype, **same) for p in planes]
        x = through_stages(x, blocks, self.blocks_per_stage, is_training=is_training, mask=mask)
        return nn.Dense(self.num_classes, kernel_init=HEAD_INIT, dtype=self.dtype, name="head")(x)


def partitions(blocks_per_stage: tuple[int, ...], is_bottleneck: bool) -> Partitions:
    """Stages (the "residual blocks" of the paper's Sec. 5.1), residual blocks, or tensors."""
    stages, blocks, layers = [], [], []
    for s, num_blocks in enumerate(blocks_per_stage, start=1):
        stages.append(f"stage{s}")
        for b in range(num_blocks):
            block = f"stage{s}/block{b}"
            blocks.append(block)
            layers += [f"{block}/conv{c}" for c in range(1, 4 if is_bottleneck else 3)]
            if b == 0 and (s > 1 or is_bottleneck):
                layers.append(f"{block}/shortcut")
    parts = {"stage": stages, "block": blocks, "layer": layers}
    return {part: {name: (name,) for name in names} for part, names in parts.items()}
