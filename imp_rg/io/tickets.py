"""Networks under their masks as safetensors, readable without this package.

In: variables and masks of one seed and level. Out: a ticket (rewind variables) or a saved level
(trained variables), with the same names.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import save

from imp_rg.io.files import write_bytes
from imp_rg.pytree import to_flat
from imp_rg.types import Masks, Variables


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
