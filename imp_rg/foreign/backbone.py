"""Pre-trained networks as starting points: the body of a file on a stem and a head drawn afresh.

In: a checkpoint of a ResNet, published or our own, and the initial variables of a network. Out: the
point that every level of IMP on a pre-trained network is rewound to (mode ``pt_trans``).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jax

from imp_rg.config import require, require_choice
from imp_rg.foreign.names import SPARE
from imp_rg.foreign.network import Network, open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.foreign.variables import DEPTHS, read_depth, read_leaves
from imp_rg.models import Model
from imp_rg.pytree import from_flat, leaf_paths, matches
from imp_rg.types import Variables

StemOrigin = Literal["fresh", "file"]

_STEM, _HEAD = "params/stem/kernel", "params/head"
_BLOCK = r"(?:layer\d+\.\d+\.|blocks\.\d+\.|stage\d+/block\d+/)"
_PREFIX = re.compile(rf"(.*?){_BLOCK}conv1[./]")
_STEM_NAMES = r"(?:conv1\.weight|conv\.weight|stem/kernel)"
_STEM_NORM = r"(?:bn1|bn|stem_norm)[./]"
_COPIES = SPARE | {"momentum", "target", "key", "k"}
"""Words in the prefixes of networks that follow the trained one, as MoCo's key encoder does."""


def load_backbone(
    path: Path, model: Model, fresh: Variables, *, stem: StemOrigin = "fresh"
) -> Variables:
    """Takes everything of a checkpoint but the stem's kernel and the head.

    The norm of the stem and all running statistics are taken. Read are files with the names of
    torchvision and timm, bare or below a prefix (``module.``, ``model.``, ``backbone.``,
    ``encoder.``, MoCo's ``module.encoder_q.``) and beside anything else: projection heads, queues,
    momentum encoders, optimizer state; and our own levels and tickets.

    Args:
      path: The checkpoint.
      model: The network, a ResNet.
      fresh: Initial variables of the network, which give stem and head.
      stem: ``file`` takes the stem's kernel, too, as networks trained on images of the same size
        allow; the study of pre-trained tickets leaves it random even so.

    Returns:
      Variables of the structure of `fresh`; what was read is NumPy float32, masked weights are 0.

    Raises:
      ValueError: In one line, if the file cannot be read, holds no ResNet, or a body of another
        architecture, which names the first tensor that does not fit and both shapes.

    References:
      Chen et al., arXiv:2012.06908 (``pt_trans``); names of torchvision's ``resnet.py``,
      facebookresearch/moco, tonylins/simclr-converter.
    """
    require_choice("stem", stem, StemOrigin)
    require(model.name in DEPTHS, "model", "must be a ResNet to start from a file", model.name)
    network = _trained_network(open_network(open_tensors(path)))
    depth = read_depth(network)
    fits = [name for name, known in DEPTHS.items() if known == depth] or ["unknown ResNet"]
    left = (_HEAD,) if stem == "file" else (_HEAD, _STEM)
    flat = dict(zip(leaf_paths(fresh), jax.tree.leaves(fresh), strict=True))
    shapes = {leaf: x.shape for leaf, x in flat.items() if not matches(leaf, left)}
    name = model.name if model.name in fits else f"{model.name} (the file holds a {fits[0]})"
    return from_flat(flat | read_leaves(_body(network, stem), shapes, name), fresh)


def _trained_network(network: Network) -> Network:
    """The trained one of the networks in a file, which the prefix of their names tells apart."""
    found = [match[1] for match in map(_PREFIX.match, network.shapes) if match]
    prefix = min(found, key=_is_copy, default="")
    return _restrict(
        network, lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None
    )


def _is_copy(prefix: str) -> bool:
    return not _COPIES.isdisjoint(re.split(r"[._/]", prefix.lower()))


def _body(network: Network, stem: StemOrigin) -> Network:
    """Blocks and the norm of the stem; whatever else a file holds is not looked at."""
    kept = [_BLOCK, _STEM_NORM] + ([_STEM_NAMES] if stem == "file" else [])
    pattern = re.compile("|".join(kept))
    return _restrict(network, lambda name: name if pattern.match(name) else None)


def _restrict(network: Network, rename: Callable[[str], str | None]) -> Network:
    """The tensors that get a name, under that name."""

    def kept(tensors):
        return {new: x for name, x in tensors.items() if (new := rename(name)) is not None}

    return replace(
        network,
        shapes=kept(network.shapes),
        weight_names=kept(network.weight_names),
        mask_names=kept(network.mask_names),
        buffer_names=kept(network.buffer_names),
    )
