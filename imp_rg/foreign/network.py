"""One level of one seed of a foreign run as a network: weights, masks, running statistics.

In: open tensor files. Out: a `Network`, which knows names and shapes and reads tensors one by one.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from imp_rg.config import require
from imp_rg.foreign.names import (
    MASK_SUFFIXES,
    STATISTICS_SUFFIXES,
    owner_of,
    sort_tensors,
)
from imp_rg.foreign.tensors import TensorFile


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that reads its tensors when asked.

    Attributes:
      shapes: Of the float parameters by canonical name, in the order of the file.
      part: Keys of the file under which the network lies, ``""`` if at its top.
      other_parts: Keys of other networks in the file, which were left.
      weights_file: Where weights and statistics lie.
      masks_file: Where masks lie.
      weight_names: Canonical to stored name of the parameters.
      mask_names: Stored names of the explicit masks, by the parameter they belong to.
      buffer_names: Stored names of the running statistics.
    """

    shapes: dict[str, tuple[int, ...]]
    part: str
    other_parts: tuple[str, ...]
    weights_file: TensorFile
    masks_file: TensorFile
    weight_names: Mapping[str, str]
    mask_names: Mapping[str, str]
    buffer_names: Mapping[str, str]

    @property
    def has_explicit_masks(self) -> bool:
        """Whether any parameter has a mask apart from its zeros."""
        return bool(self.mask_names)

    @property
    def masked_names(self) -> frozenset[str]:
        """Parameters with an explicit mask."""
        return frozenset(self.mask_names)

    @property
    def buffers(self) -> dict[str, np.ndarray]:
        """Running statistics of batch normalisation, by canonical name."""
        return {name: self.weights_file[stored] for name, stored in self.buffer_names.items()}

    def weight(self, name: str) -> np.ndarray:
        """A parameter as stored, before its mask."""
        return self.weights_file[self.weight_names[name]]

    def mask(self, name: str) -> np.ndarray | None:
        """The explicit mask of a parameter, bool; None if it has none.

        Raises:
          ValueError: If the mask holds anything but 0 and 1.
        """
        if name not in self.mask_names:
            return None
        stored = self.mask_names[name]
        values = np.asarray(self.masks_file[stored])
        if values.shape != self.shapes[name]:
            values = _unpack_bits(values, self.shapes[name])
        if values.dtype == bool:
            return values
        kept = values == 1
        strange = values[~kept & (values != 0)]
        if strange.size:
            rule = f"mask {stored!r} must hold only 0 and 1"
            raise ValueError(f"{self.masks_file.path}: {rule}, got {strange[0]}")
        return kept


def open_network(weights: TensorFile, masks: TensorFile | None = None) -> Network:
    """Finds network and masks in checkpoint files; no tensor is read.

    Masks of a file of their own come before masks beside the weights: ``X_mask`` beside ``X_orig``
    (`torch.nn.utils.prune`), ``X.mask`` beside ``X``, a tree ``masks`` (tickets of this package,
    optimizer state of JaxPruner). Without any, the zeros of the weights are the mask.

    Args:
      weights: Checkpoint.
      masks: File of masks named as the weights, if they lie apart.

    Returns:
      The network.

    Raises:
      ValueError: If there is no network, or a mask belongs to no parameter or has another shape.

    References:
      House definition.
    """
    contents = sort_tensors(weights)
    shapes_of, dtypes = weights.shapes, weights.dtypes
    floats = {n: s for n, s in contents.tensors.items() if np.issubdtype(dtypes[s], np.floating)}
    named = _named_as_masks(contents.tensors, floats)
    weight_names = {
        _pruned_name(name, floats): stored
        for name, stored in floats.items()
        if name not in named and not name.endswith(STATISTICS_SUFFIXES)
    }
    rule = "must hold the weights of a network, float tensors outside optimizer state"
    require(bool(weight_names), str(weights.path), rule, _some(weights))
    found = contents.masks or named
    if masks is not None:
        apart = sort_tensors(masks)
        found = apart.masks or _named_as_masks(apart.tensors, apart.tensors) or apart.tensors
        require(bool(found), str(masks.path), "must hold masks", _some(masks))
    masks_file = weights if masks is None else masks
    shapes = {name: shapes_of[stored] for name, stored in weight_names.items()}
    running = {n: s for n, s in floats.items() if n.endswith(STATISTICS_SUFFIXES)}
    return Network(
        shapes=shapes,
        part=contents.part,
        other_parts=contents.other_parts,
        weights_file=weights,
        masks_file=masks_file,
        weight_names=weight_names,
        mask_names=_assign_masks(found, masks_file, shapes),
        buffer_names=running | contents.statistics,
    )


def _pruned_name(name: str, names: Collection[str]) -> str:
    """The name before `torch.nn.utils.prune` put the dense weights aside."""
    base = name.removesuffix("_orig")
    return name if base in names else base


def _named_as_masks(tensors: Mapping[str, str], floats: Collection[str]) -> dict[str, str]:
    """Tensors whose name ends as a mask's, if what they would mask is there too."""
    names = {_pruned_name(n, floats) for n in floats if not n.endswith(MASK_SUFFIXES)}
    return {
        name: stored
        for name, stored in tensors.items()
        if name.endswith(MASK_SUFFIXES) and owner_of(name, names) is not None
    }


def _assign_masks(
    found: Mapping[str, str], file: TensorFile, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Stored names of masks by the parameter they belong to."""
    mask_names: dict[str, str] = {}
    mask_shapes, dtypes = file.shapes, file.dtypes
    for name, stored in found.items():
        owner = owner_of(name, shapes)
        if owner is None or owner in mask_names:
            near = ", ".join(map(repr, get_close_matches(name, shapes, n=3, cutoff=0.0)))
            rule = f"every mask must belong to one tensor of the weights (nearest: {near})"
            raise ValueError(f"{file.path}: {rule}, got {stored!r}")
        shape, packed = mask_shapes[stored], (-(-math.prod(shapes[owner]) // 8),)
        if shape != shapes[owner] and (shape != packed or dtypes[stored] != np.uint8):
            rule = f"mask {stored!r} must have the shape {shapes[owner]} of {owner!r}"
            raise ValueError(f"{file.path}: {rule}, got {shape}")
        mask_names[owner] = stored
    return mask_names


def _unpack_bits(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask that JaxPruner stored as bits."""
    return np.unpackbits(packed, count=math.prod(shape)).reshape(shape)


def _some(file: TensorFile) -> str:
    return ", ".join(list(file)[:3]) or "an empty file"
