"""Which tensors of a foreign network form its blocks, and which of them can be pruned.

In: names and shapes. Out: `BlockRules`, from a preset that the names suggest, from one asked for by
name, or from a TOML file; `make_network_partition` turns them into a `BlockPartition`.
"""

import glob
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from imp_rg.blocks import BlockPartition, make_partition
from imp_rg.config import require, require_choice
from imp_rg.foreign.names import Structure, find_structure
from imp_rg.pytree import matches

Shapes = Mapping[str, tuple[int, ...]]
Denominator = Literal["prunable", "blocks", "all"]

PRESETS = {
    "cifar-resnet": "resnet",
    "resnet50-stages": "resnet",
    "resnet-blocks": "resnet",
    "bert-layers": "bert",
    "vit-layers": "vit",
    "per-tensor": None,
}
"""Preset to the family of networks it is made for; None is any."""

NAMES = tuple(PRESETS)

_EXAMPLES = {
    "resnet": "layer1.0.conv1.weight",
    "bert": "encoder.layer.0.attention.self.query.weight",
    "vit": "blocks.0.attn.qkv.weight",
}
_RESNET50 = ((3, 4, 6, 3), 3)
"""Blocks by stage, and convolutions of a block without projection."""

_POOLER = re.compile(r"(.*[./])?pooler[./]dense[./](weight|kernel)")
_NO_MATRIX = re.compile(r"bias|token$|^cls$|^pos_?embed|^position_embed")
"""Last pieces of names of tensors that have two dimensions or more, but are no weights."""


class BlockRules(NamedTuple):
    """Blocks and prunable tensors of one network, as patterns of `imp_rg.pytree.matches`.

    Attributes:
      name: Of the preset, of the TOML file, or ``custom``.
      patterns: Block name to patterns of tensor names.
      prunable: Patterns of the tensors that can be pruned; a tensor in no block is in ``rest``.
      denominator: What the shares are shares of: all prunable weights, those in listed blocks, or
        all weights of the network.
    """

    name: str
    patterns: dict[str, tuple[str, ...]]
    prunable: tuple[str, ...]
    denominator: str = "prunable"


def choose_rules(
    shapes: Shapes,
    blocks: str | Path | Mapping[str, Sequence[str]] = "auto",
    *,
    masked: Collection[str] = (),
) -> BlockRules:
    """Chooses the blocks of a network.

    Prunable are the tensors that the preset's source study prunes: all convolutions and the head
    (``cifar-resnet``), the convolutions of the stages (``resnet50-stages``, ``resnet-blocks``), the
    matrices of the layers and the pooler (``bert-layers``, ``vit-layers``), all weights but
    embeddings (``per-tensor``). If masks are at hand they decide instead, unless every tensor has
    one, biases too: then they do not tell which tensors the run could prune.

    Args:
      shapes: Of the parameters by name, in order of depth.
      blocks: ``auto``, a name of `NAMES`, the path of a TOML file (keys ``blocks``, ``prunable``,
        ``denominator``), or patterns by block.
      masked: Parameters with an explicit mask.

    Returns:
      The rules.

    Raises:
      ValueError: If the preset is unknown or made for other networks, the file is not as it should
        be, or nothing is prunable; in one line.

    References:
      Redman et al., Sec. 5: stages of ResNet-50, layers of BERT, residual blocks of CIFAR ResNets.
      Other presets are house definitions.
    """
    structure = find_structure(shapes)
    if isinstance(blocks, Mapping):
        settings: dict[str, Any] = {"blocks": blocks}
        return _custom_rules("custom", settings, shapes, structure, masked)
    if isinstance(blocks, Path) or blocks.endswith(".toml"):
        path = Path(blocks)
        return _custom_rules(path.name, _read_toml(path), shapes, structure, masked)
    return _preset_rules(blocks, shapes, structure, masked)


def make_network_partition(shapes: Shapes, rules: BlockRules) -> BlockPartition:
    """The partition by `imp_rg.blocks.make_partition`; its leaves are the sorted names.

    Raises:
      ValueError: If a pattern matches no prunable tensor, or two blocks claim one tensor.
    """
    leaves = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    return make_partition(leaves, rules.patterns, prunable=rules.prunable)


def _preset_rules(
    name: str, shapes: Shapes, structure: Structure | None, masked: Collection[str]
) -> BlockRules:
    if name == "auto":
        name = _suggest(structure, shapes)
    if name not in PRESETS:
        near = ", ".join(get_close_matches(name, NAMES, n=3, cutoff=0.0))
        raise ValueError(f"blocks: must be a known preset (nearest: {near}), got {name!r}")
    family = PRESETS[name]
    if family is not None and (structure is None or structure.family != family):
        rule = f"{name} must find tensors named such as {_EXAMPLES[family]}"
        raise ValueError(f"blocks: {rule}, got {', '.join(list(shapes)[:3])!r}")
    prunable = _choose_prunable(name, shapes, structure, masked)
    if structure is None or family is None:
        groups = {tensor: (tensor,) for tensor in prunable}
    else:
        groups = structure.stages if name == "resnet50-stages" else structure.blocks
    allowed = set(prunable)
    members = {block: [t for t in group if t in allowed] for block, group in groups.items()}
    return BlockRules(
        name=name,
        patterns={block: _exactly(tensors) for block, tensors in members.items() if tensors},
        prunable=_exactly(prunable),
    )


def _suggest(structure: Structure | None, shapes: Shapes) -> str:
    if structure is None:
        return "per-tensor"
    if structure.family != "resnet":
        return f"{structure.family}-layers"
    depths = tuple(Counter(block.split("/")[0] for block in structure.blocks).values())
    if len(depths) == 3:
        return "cifar-resnet"
    num_convs = min(sum(len(shapes[t]) == 4 for t in b) for b in structure.blocks.values())
    return "resnet50-stages" if (depths, num_convs) == _RESNET50 else "resnet-blocks"


def _choose_prunable(
    name: str, shapes: Shapes, structure: Structure | None, masked: Collection[str]
) -> list[str]:
    matrices = [tensor for tensor, shape in shapes.items() if _is_matrix(tensor, shape)]
    inside = set() if structure is None else {t for g in structure.blocks.values() for t in g}
    is_on_vectors = set(shapes) <= set(masked) and len(matrices) < len(shapes)
    if masked and not is_on_vectors:
        prunable = [t for t in matrices if t in masked]
    elif name == "cifar-resnet":
        prunable = matrices
    elif name == "per-tensor":
        prunable = [t for t in matrices if len(shapes[t]) > 2 or "embed" not in t.lower()]
    elif PRESETS[name] == "resnet":
        prunable = [t for t in matrices if t in inside and len(shapes[t]) > 2]
    else:
        prunable = [t for t in matrices if t in inside or _POOLER.fullmatch(t)]
    rule = "must find a weight of two dimensions or more that can be pruned"
    require(bool(prunable), "blocks", rule, ", ".join(list(shapes)[:3]))
    return prunable


def _is_matrix(tensor: str, shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and not _NO_MATRIX.search(re.split("[./]", tensor)[-1])


def _exactly(tensors: Sequence[str]) -> tuple[str, ...]:
    return tuple(glob.escape(tensor) for tensor in tensors)


def _custom_rules(
    name: str,
    settings: Mapping[str, Any],
    shapes: Shapes,
    structure: Structure | None,
    masked: Collection[str],
) -> BlockRules:
    patterns = {block: tuple(chosen) for block, chosen in settings["blocks"].items()}
    if "prunable" in settings:
        for pattern in settings["prunable"]:
            is_met = any(matches(tensor, (pattern,)) for tensor in shapes)
            require(is_met, "prunable", "every pattern must match a tensor", pattern)
        chosen = [t for t in shapes if matches(t, settings["prunable"])]
        prunable = _exactly([t for t in chosen if not masked or t in masked])
    else:
        prunable = _preset_rules("auto", shapes, structure, masked).prunable
    return BlockRules(name, patterns, prunable, settings.get("denominator", "prunable"))


def _read_toml(path: Path) -> dict[str, Any]:
    """The checked content of a file of rules."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"blocks: must be a readable file, {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML or of UTF-8
        reason = str(error).splitlines()[0]
        raise ValueError(f"blocks: must be a readable TOML file, {path}: {reason}") from error
    for key in settings:
        rule = "must hold blocks, prunable and denominator only"
        require(key in ("blocks", "prunable", "denominator"), str(path), rule, key)
    blocks = settings.get("blocks")
    rule = "blocks must be a table of lists of patterns"
    require(isinstance(blocks, dict) and bool(blocks), str(path), rule, blocks)
    lists = {f"blocks.{block}": chosen for block, chosen in settings["blocks"].items()}
    lists |= {"prunable": settings["prunable"]} if "prunable" in settings else {}
    for key, patterns in lists.items():
        is_list = isinstance(patterns, list) and bool(patterns)
        is_met = is_list and all(isinstance(pattern, str) and pattern for pattern in patterns)
        require(is_met, str(path), f"{key} must be a list of patterns", patterns)
    require_choice(f"{path}: denominator", settings.get("denominator", "prunable"), Denominator)
    return settings
