"""Checkpoints of JAX programs: Orbax folders and Flax msgpack files."""

import contextlib
import json
import logging
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from imp_rg.foreign.leaves import (
    DTYPES,
    MAX_DEPTH,
    MAX_INFLATED,
    MAX_ITEMS,
    Leaf,
    UnreadableError,
    add_leaf,
    check_size,
    map_file,
    mapped_leaf,
    walk,
)

MAX_METADATA = 100_000_000
"""Bytes of the longest description of an Orbax tree."""


def orbax_items(path: Path) -> dict[str, Path]:
    """Trees in an Orbax folder by the prefix of their names; none if it is not one.

    The folder itself, or the items of a step folder of a `CheckpointManager`; one alone (usually
    ``default``) needs no prefix.
    """
    if (path / "_METADATA").is_file():
        return {"": path}
    if not (path / "_CHECKPOINT_METADATA").is_file():
        return {}
    items = sorted(item.parent for item in path.glob("*/_METADATA") if item.is_file())
    return {f"{item.name}/" if len(items) > 1 else "": item for item in items}


def read_orbax(path: Path) -> dict[str, Leaf]:
    """Arrays of an Orbax folder; each is restored when asked for.

    Raises:
      UnreadableError: If the description of a tree is not as Orbax writes it.
    """
    leaves: dict[str, Leaf] = {}
    for prefix, item in orbax_items(path).items():
        for name, leaf in _read_tree(item.absolute()):
            add_leaf(leaves, prefix + name, leaf)
    return leaves


def _read_tree(path: Path) -> Iterator[tuple[str, Leaf]]:
    import jax
    import orbax.checkpoint as ocp

    _check_orbax_keys(path / "_METADATA")
    with _quiet_absl(), ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
    if metadata is None:
        raise UnreadableError(
            "must hold the arrays that its _METADATA names; the folder is damaged"
        )
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(metadata.tree)
    for i, (keys, value) in enumerate(with_paths):
        scalar, array = ocp.metadata.value.ScalarMetadata, ocp.metadata.value.ArrayMetadata
        if isinstance(value, scalar) or not isinstance(value, array):
            continue
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        dtype = np.dtype(value.dtype)
        if dtype.name not in DTYPES:
            raise UnreadableError(f"tensor {name!r} must hold numbers, got type {dtype.name}")
        shape = tuple(map(int, value.shape))
        check_size(name, shape, dtype, limit=MAX_INFLATED)
        yield name, Leaf(shape, dtype, partial(_restore, path, treedef, i))


def _check_orbax_keys(path: Path) -> None:
    """Keys become folder names and nested dicts, before Orbax has looked at them."""
    if path.stat().st_size > MAX_METADATA:
        raise UnreadableError(f"_METADATA must be at most {MAX_METADATA} bytes")
    for entry in json.loads(path.read_bytes())["tree_metadata"].values():
        keys = [str(key["key"]) for key in entry["key_metadata"]]
        if len(keys) > MAX_DEPTH:
            raise UnreadableError(f"must be nested at most {MAX_DEPTH} deep, got {len(keys)}")
        if any(".." in key.split("/") or key.startswith("/") for key in keys):
            raise UnreadableError(f"tensor {'/'.join(keys)!r} must have a name that is no path")


def _restore(path: Path, treedef: Any, index: int) -> np.ndarray:
    """One leaf of a tree; the others are left where they are."""
    import jax
    import orbax.checkpoint as ocp

    leaves = [ocp.PLACEHOLDER] * treedef.num_leaves
    leaves[index] = 0
    item = jax.tree.unflatten(treedef, leaves)
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    with _quiet_absl(), ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore(path, ocp.args.PyTreeRestore(item, restore_args=how))
    return np.asarray(jax.tree.leaves(tree)[index])


@contextlib.contextmanager
def _quiet_absl() -> Iterator[None]:
    """Orbax logs a warning for files that a step folder never has."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def is_msgpack(head: bytes) -> bool:
    """Whether bytes begin with a msgpack dict of at least one entry whose first key is text."""
    if not head:
        return False
    start = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0)
    key = head[start : start + 1]
    return start > 0 and key != b"" and (0xA0 <= key[0] <= 0xBF or 0xD9 <= key[0] <= 0xDB)


def read_msgpack(path: Path) -> dict[str, Leaf]:
    """Arrays of a file of `flax.serialization.to_bytes`, mapped where they lie.

    Raises:
      UnreadableError: If the bytes are anything else.
    """
    data = map_file(path)
    reader = _MsgpackReader(data)
    tree = _join_chunks(reader.value())
    if reader.position != len(data):
        raise UnreadableError("must end where its msgpack does")
    leaves: dict[str, Leaf] = {}
    for name, value in walk(tree):
        if isinstance(value, Leaf):
            add_leaf(leaves, name, value)
    return leaves


def _join_chunks(tree: Any) -> Any:
    """Arrays that Flax wrote in pieces, whole again."""
    if isinstance(tree, list):
        return [_join_chunks(child) for child in tree]
    if not isinstance(tree, dict):
        return tree
    if "__msgpack_chunked_array__" not in tree:
        return {key: _join_chunks(child) for key, child in tree.items()}
    try:
        shape = tuple(tree["shape"][str(i)] for i in range(len(tree["shape"])))
        chunks = [tree["chunks"][str(i)] for i in range(len(tree["chunks"]))]
        dtype, total = chunks[0].dtype, sum(chunk.shape[0] for chunk in chunks)
        check_size("in chunks", shape, dtype, limit=total * dtype.itemsize)
    except (AttributeError, IndexError, KeyError, TypeError):
        raise UnreadableError("an array in chunks must be as Flax writes it") from None
    if any(chunk.dtype != dtype or chunk.shape != (chunk.shape[0],) for chunk in chunks):
        raise UnreadableError("an array in chunks must consist of flat pieces of one type")
    if math.prod(shape) != total:
        raise UnreadableError(f"an array in chunks of shape {shape} must hold {total} values")
    return Leaf(
        shape, dtype, lambda: np.concatenate([chunk.read() for chunk in chunks]).reshape(shape)
    )


class _MsgpackReader:
    """Reads the structure of msgpack and only locates the arrays, which a parser would copy.

    Integers and text come as such, arrays as leaves, everything else as None. Every entry takes at
    least a byte, so that declared counts cannot outgrow the file.

    Attributes:
      position: Of the next byte.
    """

    FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
    FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
    SIZED = {
        **{0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)},
        **{0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)},
        **{0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)},
        **{0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("dict", 2), 0xDF: ("dict", 4)},
    }

    def __init__(self, data: np.ndarray):
        """Starts at the first byte."""
        self.data = data
        self.position = 0
        self.num_items = 0

    def value(self, path: tuple[str, ...] = ()) -> Any:
        """The next object, which lies below the keys of `path`."""
        self.num_items += 1
        if len(path) > MAX_DEPTH or self.num_items > MAX_ITEMS:
            raise UnreadableError(
                f"must be nested at most {MAX_DEPTH} deep with at most {MAX_ITEMS} entries"
            )
        kind, size = self._head()
        if kind == "dict":
            return self._dict(size, path)
        if kind == "list":
            return [self.value((*path, str(i))) for i in range(size)]
        if kind == "ext":
            return self._extension(size, "/".join(path))
        if kind == "int":
            return size
        start = self._skip(size)
        return self.data[start : self.position].tobytes().decode() if kind == "str" else None

    def _dict(self, size: int, path: tuple[str, ...]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for _ in range(size):
            key = self.value((*path, "key"))
            if not isinstance(key, str | int) or str(key) in tree:
                raise UnreadableError(f"keys must be text and there once, got {key!r}")
            tree[str(key)] = self.value((*path, str(key)))
        return tree

    def _head(self) -> tuple[str, int]:
        """Kind of the next object and its size; of integers the value."""
        code = self._number(1)
        if code < 0x80:
            return "int", code
        if code < 0xC0:
            kind, bits = ("dict", 4) if code < 0x90 else ("list", 4) if code < 0xA0 else ("str", 5)
            return kind, code & ((1 << bits) - 1)
        if code >= 0xE0:
            return "other", 0
        if code in self.UNSIGNED:
            return "int", self._number(self.UNSIGNED[code])
        if code in self.FIXED:
            return "other", self.FIXED[code]
        if code in self.FIXED_EXT:
            return "ext", self.FIXED_EXT[code]
        if code not in self.SIZED:
            raise UnreadableError(f"must be msgpack, got byte {code:#x} at {self.position - 1}")
        kind, width = self.SIZED[code]
        return kind, self._number(width)

    def _extension(self, size: int, name: str) -> Leaf | None:
        """An array of Flax (kind 1); its complex numbers (2) and NumPy scalars (3) are left out."""
        kind = self._number(1)
        end = self.position + size
        if kind != 1:
            if kind not in (2, 3):
                raise UnreadableError(f"{name!r} must be what Flax writes, got extension {kind}")
            self._skip(size)
            return None
        if self._head() != ("list", 3):
            raise UnreadableError(f"tensor {name!r} must be as Flax writes it")
        shape, dtype_name = self.value(), self.value()
        is_shape = isinstance(shape, list) and all(isinstance(n, int) for n in shape)
        if not is_shape or not isinstance(dtype_name, str) or dtype_name not in DTYPES:
            raise UnreadableError(
                f"tensor {name!r} must hold numbers, got type {dtype_name!r} of shape {shape!r}"
            )
        bytes_kind, num_bytes = self._head()
        leaf = mapped_leaf(name, self.data, self.position, tuple(shape), DTYPES[dtype_name])
        expected = check_size(name, leaf.shape, leaf.dtype, limit=num_bytes)
        self._skip(num_bytes)
        if bytes_kind != "bin" or expected != num_bytes or self.position != end:
            raise UnreadableError(f"tensor {name!r} of shape {leaf.shape} must fill its bytes")
        return leaf

    def _number(self, width: int) -> int:
        start = self._skip(width)
        return int.from_bytes(self.data[start : self.position].tobytes(), "big")

    def _skip(self, size: int) -> int:
        """Moves on by some bytes and gives where they began."""
        start = self.position
        if size > len(self.data) - start:
            raise UnreadableError("must hold all that it declares; the file is truncated")
        self.position += size
        return start
