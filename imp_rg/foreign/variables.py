"""Checkpoints made elsewhere, or saved by us, as variables of our networks.

Each of our leaves has one name in the file, which depends on who wrote it: PyTorch's convention
(``layer1.0.conv1.weight``), open_lth's (``blocks.0.conv1.weight``) or our own leaf paths. The
mapping is complete both ways: a leaf without a tensor and a tensor without a leaf are errors.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from imp_rg.config import require
from imp_rg.foreign.network import Network, open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.models import IMAGENET_BLOCKS, RESNET_BLOCKS, Model, make_model
from imp_rg.models.resnet_cifar import STAGE_CHANNELS, Shortcut
from imp_rg.models.resnet_imagenet import STAGE_PLANES, Stem
from imp_rg.pytree import from_flat, leaf_paths
from imp_rg.types import Variables

DEPTHS = {name: ((depth,) * 3, False) for name, depth in RESNET_BLOCKS.items()} | IMAGENET_BLOCKS
"""Residual blocks of each stage of every ResNet by name, and whether they are bottlenecks."""

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_STAGED = re.compile(r"(?:stage(\d+)/block|layer(\d+)\.)(\d+)[/.]")
_FLAT = re.compile(r"blocks\.(\d+)\.")


def load_variables(
    path: Path,
    model: str | Model,
    *,
    num_classes: int | None = None,
    shortcut: Shortcut | None = None,
    stem: Stem | None = None,
    masks: Path | None = None,
) -> Variables:
    """Reads a checkpoint into one of our networks.

    Args:
      path: Checkpoint with the names of torchvision, timm, open_lth or the common CIFAR ResNet
        repositories, or one of our own levels and tickets.
      model: The network, or its registry name; what the name leaves open is read off the tensors.
      num_classes: Outputs, if `model` is a name.
      shortcut: See `imp_rg.models.make_model`, if `model` is a name.
      stem: See `imp_rg.models.make_model`, if `model` is a name.
      masks: File of masks, where they lie apart.

    Returns:
      The variables as NumPy arrays in float32; masked weights are zero.

    Raises:
      ValueError: If the tensors are not those of the model: the depth differs (the name that fits
        is given), the kind of shortcut does, or a tensor is missing, left over, not finite or of
        another shape.

    References:
      torchvision's ``resnet.py``, open_lth's ``cifar_resnet.py`` for the names.
    """
    network = open_network(open_tensors(path), None if masks is None else open_tensors(masks))
    if isinstance(model, str):
        model = infer_model(network, model, num_classes=num_classes, shortcut=shortcut, stem=stem)
    return to_variables(network, model)


def infer_model(
    network: Network,
    name: str,
    *,
    num_classes: int | None = None,
    shortcut: Shortcut | None = None,
    stem: Stem | None = None,
) -> Model:
    """The model of a registry name with the width of a checkpoint, and whatever else is None.

    Raises:
      ValueError: If the name is unknown, or the checkpoint is no such network.

    References:
      House definition.
    """
    _check_depth(network, name)
    head = _stored_kernel(network, "head")
    settings = {
        "num_classes": head[-1] if num_classes is None else num_classes,
        "shortcut": shortcut or ("projection" if _projections(network) else "pad"),
    }
    if name in DEPTHS:
        size, *_, channels = _stored_kernel(network, "stem")
        base = (STAGE_CHANNELS if name in RESNET_BLOCKS else STAGE_PLANES)[0]
        settings["width"] = channels / base
        settings["stem"] = stem or ("imagenet" if size == 7 else "cifar")
    return make_model(name, **settings)


def to_variables(network: Network, model: Model) -> Variables:
    """The tensors of a checkpoint in the structure and layout of a model, masks applied.

    Raises:
      ValueError: As `load_variables`.

    References:
      House definition.
    """
    _check_depth(network, model.name)
    template = _template(network, model)
    _check_shortcut(network, template)
    leaves = zip(leaf_paths(template), jax.tree.leaves(template), strict=True)
    shapes = {path: leaf.shape for path, leaf in leaves}
    return from_flat(read_leaves(network, shapes, model.name), template)


def read_leaves(
    network: Network, shapes: Mapping[str, tuple[int, ...]], name: str
) -> dict[str, np.ndarray]:
    """Leaves of ours out of a checkpoint that holds these and no others, masks applied.

    Args:
      network: The checkpoint.
      shapes: Of the leaves, by path below `Variables`.
      name: Of the model, for the errors.

    Raises:
      ValueError: If a tensor is missing, left over, not finite or of another shape.

    References:
      House definition.
    """
    convention = _find_convention(network)
    names = {path: convention.name(path.partition("/")[2]) for path in shapes}
    stored = {names[path]: convention.to_stored(shape) for path, shape in shapes.items()}
    _check_tensors(network, stored, name)
    statistics = network.buffers

    def read(name: str) -> np.ndarray:
        values = statistics[name] if name in statistics else _masked_weight(network, name)
        values = np.asarray(values, np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{network.weights_file.path}: {name} must be finite")
        axes = convention.to_ours(tuple(range(values.ndim)))
        return np.ascontiguousarray(values.transpose(axes))

    return {path: read(name) for path, name in names.items()}


def read_depth(network: Network) -> tuple[tuple[int, ...], bool]:
    """Residual blocks of each stage of a checkpoint, and whether they are bottlenecks.

    Raises:
      ValueError: If the checkpoint is no ResNet.

    References:
      House definition.
    """
    path, found = network.weights_file.path, _count_blocks(network)
    hint = "layer1.0.conv1.weight, blocks.0.conv1.weight or stage1/block0/conv1/kernel"
    first = next(iter(network.shapes))
    require(bool(found), str(path), f"must hold a ResNet with names such as {hint}", first)
    return found, any(re.search(r"[./]conv3[./]", tensor) for tensor in network.shapes)


class _Convention(NamedTuple):
    """How a checkpoint names and lays out what our leaf paths name.

    Attributes:
      modules: Modules that are called otherwise; empty for our own files.
      blocks_per_stage: Residual blocks if they count through all stages, else 0.
    """

    modules: dict[str, str]
    blocks_per_stage: int

    def name(self, path: str) -> str:
        """Name in the file of one of our leaf paths."""
        if not self.modules:
            return path
        *block, module, leaf = path.split("/")
        module = self.modules.get(module, module.replace("norm", "bn"))
        return ".".join([*self._block(block), module, _LEAVES[leaf]])

    def _block(self, block: list[str]) -> list[str]:
        if not block:
            return []
        stage, index = int(block[0].removeprefix("stage")), block[1].removeprefix("block")
        if self.blocks_per_stage:
            return ["blocks", str((stage - 1) * self.blocks_per_stage + int(index))]
        return [f"layer{stage}", index]

    def to_stored(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Shape or axes of ours in the order of the file: HWIO as OIHW, linear transposed."""
        if not self.modules or len(axes) < 2:
            return axes
        return (axes[-1], axes[-2], *axes[:-2])

    def to_ours(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Inverse of `to_stored`."""
        if not self.modules or len(axes) < 2:
            return axes
        return (*axes[2:], axes[1], axes[0])


def _find_convention(network: Network) -> _Convention:
    names = network.shapes
    if any("/" in name for name in names):
        return _Convention({}, 0)
    is_open_lth = any(map(_FLAT.match, names))
    branch = "downsample" if any(".downsample." in name for name in names) else "shortcut"
    modules = {
        "stem": "conv" if is_open_lth else "conv1",
        "stem_norm": "bn" if is_open_lth else "bn1",
        "shortcut": f"{branch}.0",
        "shortcut_norm": f"{branch}.1",
        "head": "linear" if "linear.weight" in names else "fc",
    }
    return _Convention(modules, _count_blocks(network)[0] if is_open_lth else 0)


def _count_blocks(network: Network) -> tuple[int, ...]:
    """Residual blocks of each stage; open_lth counts through its three."""
    flat = {match[1] for match in map(_FLAT.match, network.shapes) if match}
    if flat:
        return (len(flat) // 3,) * 3 if len(flat) % 3 == 0 else (len(flat),)
    found = {match.groups() for match in map(_STAGED.match, network.shapes) if match}
    stages = [ours or theirs for ours, theirs, _ in found]
    return tuple(stages.count(stage) for stage in sorted(set(stages)))


def _projections(network: Network) -> list[str]:
    return [
        name for name in network.shapes if re.search(r"\.(shortcut|downsample)\.|/shortcut/", name)
    ]


def _stored_kernel(network: Network, module: str) -> tuple[int, ...]:
    """Shape of a kernel in our layout."""
    convention = _find_convention(network)
    name = convention.name(f"{module}/kernel")
    path = str(network.weights_file.path)
    require(name in network.shapes, path, f"must hold {name}", ", ".join([*network.shapes][:3]))
    return convention.to_ours(network.shapes[name])


def _template(network: Network, model: Model) -> Variables:
    """Shapes of the model's variables; only the channels of its images matter."""
    first = _stored_kernel(network, "stem" if model.name in DEPTHS else "dense0")
    return jax.eval_shape(lambda: model.init(jax.random.key(0), (1, 1, first[-2])))


def _check_depth(network: Network, name: str) -> None:
    if name not in DEPTHS:
        return
    depth = read_depth(network)
    if depth != DEPTHS[name]:
        fits = [other for other, known in DEPTHS.items() if known == depth]
        kind = "bottleneck" if depth[1] else "basic"
        counts = ", ".join(map(str, depth[0]))
        rule = f"must be {fits[0]}" if fits else "must be another, but no known one fits"
        path = network.weights_file.path
        require(False, "model", f"{rule}: {path} has {counts} {kind} blocks a stage", name)


def _check_shortcut(network: Network, template: Variables) -> None:
    has_any = any("/shortcut/" in path for path in leaf_paths(template))
    found, path = _projections(network), network.weights_file.path
    if found and not has_any:
        rule = f"must be projection for {path}, which holds {found[0]}"
        require(False, "shortcut", rule, "pad")
    if has_any and not found:
        rule = f"must be pad for {path}, which holds no 1x1 shortcuts"
        require(False, "shortcut", rule, "projection")


def _check_tensors(network: Network, expected: dict[str, tuple[int, ...]], name: str) -> None:
    path, stored = network.weights_file.path, network.weights_file.shapes
    found = dict(network.shapes)
    found |= {name: tuple(stored[key]) for name, key in network.buffer_names.items()}
    for tensor, shape in expected.items():
        if tensor not in found:
            raise ValueError(f"{path}: must hold {tensor} for {name}, it is missing")
        rule = f"{tensor} must have shape {shape} for {name}"
        require(found[tensor] == shape, str(path), rule, found[tensor])
    left = [tensor for tensor in found if tensor not in expected]
    left = [tensor for tensor in left if not tensor.endswith("num_batches_tracked")]
    require(not left, str(path), f"must hold nothing besides {name}", left[:1])


def _masked_weight(network: Network, name: str) -> np.ndarray:
    weight, mask = network.weight(name), network.mask(name)
    return weight if mask is None else np.where(mask, weight, 0)
