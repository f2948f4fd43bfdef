"""What is pruned: networks by name, each with its prunable tensors and its blocks.

In: a name and the shape of the data. Out: a `Model`, whose functions act on plain pytrees.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.blocks import BlockPartition, make_partition
from imp_rg.config import require, require_choice
from imp_rg.data.augment import normalize
from imp_rg.models import mlp, resnet_cifar, resnet_imagenet
from imp_rg.models.base import GammaInit, Partitions
from imp_rg.models.resnet_cifar import Shortcut
from imp_rg.models.resnet_imagenet import Stem
from imp_rg.types import ApplyFn, Float, Key, Params, Variables

RESNET_BLOCKS = {f"resnet{6 * d + 2}": d for d in (2, 3, 5, 7, 9)}
IMAGENET_BLOCKS: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""Residual blocks of each stage, and whether they are bottlenecks."""

HEAD = "head/kernel"
"""Kernel of the classifier of every network."""

NAMES = ("lenet300-100", *RESNET_BLOCKS, *IMAGENET_BLOCKS)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network, what of it can be pruned, and how it divides into blocks.

    Attributes:
      name: Registry name.
      module: Flax Linen module of normalised images.
      prunable: Patterns of the leaves that can be pruned.
      partitions: Named block partitions, as patterns.
      has_convolutions: Decides how it is best run on a CPU.
    """

    name: str
    module: nn.Module
    prunable: tuple[str, ...]
    partitions: Partitions
    has_convolutions: bool

    def with_dense_head(self) -> "Model":
        """The same network whose head cannot be pruned, as transfer to other classes needs."""
        prunable = tuple(p for p in self.prunable if p != HEAD)
        partitions = {
            part: {name: patterns for name, patterns in blocks.items() if name != "head"}
            for part, blocks in self.partitions.items()
        }
        return replace(self, prunable=prunable, partitions=partitions)

    def init(self, key: Key, input_shape: tuple[int, ...]) -> Variables:
        """Draws initial variables for images of shape (height, width, channel)."""
        variables = self.module.init(key, jnp.zeros((1, *input_shape)), is_training=False)
        return Variables(params=variables["params"], batch_stats=variables.get("batch_stats", {}))

    def shapes(self, input_shape: tuple[int, ...]) -> Params:
        """Shapes of the params, without drawing them."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0), input_shape)).params

    def make_apply_fn(
        self, mean: Float[np.ndarray, " channel"], std: Float[np.ndarray, " channel"]
    ) -> ApplyFn:
        """Binds the normalisation, so that the network takes raw pixels."""

        def apply_fn(variables, x, *, is_training, weights=None):
            collections = {"params": variables.params, "batch_stats": variables.batch_stats}
            logits, updated = self.module.apply(
                collections,
                normalize(x, mean, std),
                is_training=is_training,
                weights=weights,
                mutable=["batch_stats"],
            )
            logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
            return logits, updated.get("batch_stats", variables.batch_stats)

        return apply_fn

    def partition(
        self, blocks: str | Mapping[str, tuple[str, ...]], input_shape: tuple[int, ...]
    ) -> BlockPartition:
        """Resolves a partition by name, or builds one from patterns.

        Raises:
          ValueError: If the name is unknown, a pattern matches nothing, or two blocks overlap.
        """
        if isinstance(blocks, str):
            choices = ", ".join(self.partitions)
            require(blocks in self.partitions, "blocks", f"{self.name} has {choices}", blocks)
            blocks = self.partitions[blocks]
        return make_partition(self.shapes(input_shape), blocks, prunable=self.prunable)


def make_model(
    name: str,
    *,
    num_classes: int,
    width: float = 1.0,
    shortcut: Shortcut = "projection",
    gamma_init: GammaInit = "one",
    stem: Stem = "cifar",
    dtype: jnp.dtype | None = None,
) -> Model:
    """Builds a network by name.

    Args:
      name: ``resnet14``, 20, 32, 44 or 56 for small images; ``resnet18``, 34 or 50 as torchvision
        builds them; or ``lenet`` with hidden widths: ``lenet300-100``.
      num_classes: Outputs.
      width: Multiplies the channels (ResNets) or units (MLPs).
      shortcut: ``projection`` (He et al., option B) or ``pad`` (option A); ResNet-14 to 56 only,
        the shortcuts of ResNet-18, 34 and 50 are always projections.
      gamma_init: Batch-norm scales, ``one`` or ``uniform``; ResNets only.
      stem: ``cifar`` (3x3) or ``imagenet`` (7x7 of stride 2, then pooling); ResNet-18, 34 and 50
        only.
      dtype: Of the computation (bfloat16 on accelerators); parameters stay float32.

    Returns:
      The model.

    Raises:
      ValueError: If the name is unknown (the nearest are given) or the width is not positive.
    """
    require(width > 0, "width", "must be positive", width)
    require_choice("shortcut", shortcut, Shortcut)
    require_choice("gamma_init", gamma_init, GammaInit)
    require_choice("stem", stem, Stem)
    common: Any = {"num_classes": num_classes, "dtype": dtype}
    resnet = common | {"width": width, "gamma_init": gamma_init}
    if name in RESNET_BLOCKS:
        depth = RESNET_BLOCKS[name]
        family, parts = resnet_cifar, resnet_cifar.partitions(depth, shortcut)
        module = resnet_cifar.ResNetCifar(blocks_per_stage=depth, shortcut=shortcut, **resnet)
    elif name in IMAGENET_BLOCKS:
        depths, is_bottleneck = IMAGENET_BLOCKS[name]
        family, parts = resnet_imagenet, resnet_imagenet.partitions(depths, is_bottleneck)
        module = resnet_imagenet.ResNetImagenet(
            blocks_per_stage=depths, is_bottleneck=is_bottleneck, stem=stem, **resnet
        )
    elif re.fullmatch(r"lenet[1-9]\d*(-[1-9]\d*)*", name):
        widths = tuple(max(1, round(int(w) * width)) for w in name[len("lenet") :].split("-"))
        family, parts = mlp, mlp.partitions(len(widths))
        module = mlp.Mlp(widths=widths, **common)
    else:
        near = ", ".join(get_close_matches(name, NAMES, n=3, cutoff=0.0))
        raise ValueError(f"model: must be a known name (nearest: {near}), got {name!r}")
    return Model(
        name=name,
        module=module,
        prunable=family.PRUNABLE,
        partitions=parts,
        has_convolutions=family is not mlp,
    )
