"""Named arrays of one file or folder, whatever wrote it: recognised by content, read when asked."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imp_rg.foreign.array_files import is_safetensors, read_npz, read_safetensors
from imp_rg.foreign.flax_files import is_msgpack, orbax_items, read_msgpack, read_orbax
from imp_rg.foreign.leaves import Leaf, UnreadableError, given_dtype, one_line_errors
from imp_rg.foreign.torch_file import LEGACY_MAGIC, read_torch, require_torch

EXPECTED = "a PyTorch, safetensors, npz or Flax msgpack file, or an Orbax folder"
_HEAD_SIZE = 512


@dataclass(frozen=True, eq=False)
class TensorFile(Mapping[str, np.ndarray]):
    """Named arrays of one file, read when asked for.

    Arrays are host arrays that must not be written to, mapped from the file where the format
    allows it. Floats narrower than float32 come as float32. Keys of nested trees are joined with
    ``/``; what is no array is left out.

    Attributes:
      path: The file or folder.
      format: ``torch``, ``safetensors``, ``npz``, ``orbax`` or ``msgpack``.
      leaves: The arrays, not read yet.
      metadata: Text in the header of a safetensors file, else empty.
    """

    path: Path
    format: str
    leaves: Mapping[str, Leaf] = field(repr=False)
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, known without reading values."""
        return {name: leaf.shape for name, leaf in self.leaves.items()}

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        """Types by name of the arrays as they are handed out."""
        return {name: given_dtype(leaf.dtype) for name, leaf in self.leaves.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads one array.

        Raises:
          KeyError: If there is none of that name.
          ValueError: If the file is damaged there, in one line.
        """
        leaf = self.leaves[name]
        with one_line_errors(self.path, self.format):
            array = np.asarray(leaf.read())
            if array.shape != leaf.shape or array.dtype.itemsize < leaf.dtype.itemsize:
                raise UnreadableError(
                    f"tensor {name!r} must be {leaf.dtype} {leaf.shape}, "
                    f"got {array.dtype} {array.shape}"
                )
            array = array.astype(given_dtype(leaf.dtype), copy=False).view()
        array.flags.writeable = False
        return array

    def __contains__(self, name: object) -> bool:
        return name in self.leaves  # that of Mapping would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)


def is_tensor_file(path: Path) -> bool:
    """Whether a file or folder looks like one that `open_tensors` reads, by its first bytes."""
    try:
        return _format_of(path) is not None
    except (OSError, ValueError):
        return False


def open_tensors(path: Path) -> TensorFile:
    """Opens a checkpoint made by any of the usual libraries, without reading the values.

    Nothing in it can run code: pickled objects are refused, and so is what declares more than it
    can hold, before memory is taken.

    Args:
      path: A file or an Orbax folder.

    Raises:
      ValueError: In one line, if it is none of the known formats, damaged, or holds no arrays.
    """
    path = Path(path)
    with one_line_errors(path, "checkpoint"):
        name = _format_of(path)
        if name is None:
            raise UnreadableError(f"must be {EXPECTED}; it is {_describe(path)}")
    if name == "torch":
        require_torch(path)
    with one_line_errors(path, name):
        leaves, metadata = _read(path, name)
        if not leaves:
            raise UnreadableError(f"must hold arrays; this {name} file has none")
    return TensorFile(path, name, leaves, metadata)


def _read(path: Path, name: str) -> tuple[dict[str, Leaf], dict[str, str]]:
    if name == "safetensors":
        return read_safetensors(path)
    readers = {"torch": read_torch, "npz": read_npz, "orbax": read_orbax, "msgpack": read_msgpack}
    return readers[name](path), {}


def _format_of(path: Path) -> str | None:
    if path.is_dir():
        return "orbax" if orbax_items(path) else None
    if not path.is_file():
        return None  # neither does a pipe, which would block, count as a file
    head = _head(path)
    if head.startswith(b"PK"):
        return _zip_format(path, head)
    if head.startswith(LEGACY_MAGIC):
        return "torch"
    if is_safetensors(head, path.stat().st_size):
        return "safetensors"
    return "msgpack" if is_msgpack(head) else None


def _zip_format(path: Path, head: bytes) -> str | None:
    """By the members; by the first alone where the directory at the end is cut off."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        length = int.from_bytes(head[26:28], "little")
        names = [head[30 : 30 + length].decode("latin1")]
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else None


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD_SIZE)


def _describe(path: Path) -> str:
    """What a path is that is no checkpoint, as far as it shows."""
    if path.is_dir():
        return "another folder"
    if not path.exists():
        return "not there"
    if not path.is_file():
        return "no plain file"
    head = _head(path)
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer; fetch the file itself with git lfs pull"
    if head.lstrip().startswith(b"<"):
        return "a web page or XML; was it downloaded by its real address?"
    if head.startswith(b"PK"):
        return "a zip archive of other things"
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a plain pickle, which could run code; save the state_dict() with torch.save"
    return "something else"
