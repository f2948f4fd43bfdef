"""Networks under their masks as safetensors, readable without this package.

In: variables and masks of one seed and level. Out: a ticket (rewind variables) or a saved level
(trained variables), with the same names; and tickets back.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from imp_rg.config import require
from imp_rg.pytree import to_flat
from imp_rg.runs.files import write_bytes
from imp_rg.tickets.ticket import Ticket
from imp_rg.types import Masks, Variables

MASKS = "masks/"
"""What the names of masks begin with."""


def write_ticket(path: Path, rewind: Variables, masks: Masks, metadata: Mapping[str, str]) -> None:
    """Writes one ticket.

    The rewind weights are stored unmasked: the ticket is their product.

    Args:
      path: File to write, ``.safetensors``.
      rewind: Variables at the rewind step.
      masks: Of the level.
      metadata: Strings for the header (config hash, seed, level, density).

    References:
      House definition; a ticket is (masks, rewind weights), Redman et al., Sec. 2.1.
    """
    _write(path, rewind, masks, metadata)


def write_level(path: Path, trained: Variables, masks: Masks, metadata: Mapping[str, str]) -> None:
    """Writes the trained network of one level; its pruned weights are zero.

    Args:
      path: File to write, ``.safetensors``.
      trained: Variables at the end of the level's training.
      masks: Of the level.
      metadata: Strings for the header, as of a ticket.

    References:
      House definition.
    """
    _write(path, trained, masks, metadata)


def read_ticket(path: Path) -> Ticket:
    """Reads a file of `write_ticket` or `write_level`; nothing in it can run code.

    Args:
      path: File to read.

    Returns:
      Variables and masks as nested dicts of host arrays.

    Raises:
      ValueError: In one line, if the file cannot be read, holds other trees than variables and
        masks, or masks that do not fit.

    References:
      House definition.
    """
    trees: dict[str, Any] = {"params": {}, "batch_stats": {}, "masks": {}}
    for name, values in _tensors(path):
        tree, *keys = name.split("/")
        rule = "must be a ticket, with tensors under params/, batch_stats/ and masks/ only"
        require(tree in trees and bool(keys), str(path), rule, name)
        _put(trees[tree], keys, values, path)
    require(bool(trees["params"]), str(path), "must be a ticket, with tensors under params/", [])
    try:
        return Ticket(Variables(trees["params"], trees["batch_stats"]), trees["masks"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_masks(path: Path) -> dict[str, np.ndarray]:
    """The masks of a ticket by leaf path; its weights are not read.

    Raises:
      ValueError: In one line, if the file cannot be read.
    """
    return {name.removeprefix(MASKS): values for name, values in _tensors(path, prefix=MASKS)}


def _tensors(path: Path, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of a safetensors file as they lie in it, one's own copies."""
    require(path.is_file(), str(path), "must be a safetensors file", "it is not there")
    try:
        with safe_open(path, "numpy") as file:
            for name in file.offset_keys():
                if name.startswith(prefix):
                    yield name, file.get_tensor(name)
    except (SafetensorError, OSError, AttributeError, TypeError) as error:  # also of odd types
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: must be a readable safetensors file, got {reason}") from error


def _put(node: dict[str, Any], keys: list[str], values: np.ndarray, path: Path) -> None:
    """Hangs an array into nested dicts."""
    rule, name = "no tensor can lie under another", "/".join(keys)
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        require(isinstance(node, dict), str(path), rule, name)
    require(keys[-1] not in node, str(path), rule, name)
    node[keys[-1]] = values


def _write(path: Path, variables: Variables, masks: Masks, metadata: Mapping[str, str]) -> None:
    """Names are leaf paths under ``params/``, ``batch_stats/`` and ``masks/``; masks are bool."""
    tree = {"params": variables.params, "batch_stats": variables.batch_stats, "masks": masks}
    write_bytes(path, _sort_metadata(save(to_flat(tree), dict(metadata))))


def _sort_metadata(content: bytes) -> bytes:
    """Gives equal tickets equal bytes: safetensors orders the metadata by chance."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + size :]
