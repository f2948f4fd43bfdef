"""What the readers of all formats share: a named array not read yet, and the limits they keep."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAX_INFLATED = 4 << 30
"""Bytes of the largest tensor that is read where it is stored compressed."""

MAX_DEPTH = 64
"""Levels of nesting that a file may have."""

MAX_ITEMS = 4_000_000
"""Entries of all dicts and lists that a file may have: a DAG of a few bytes unfolds to billions."""

_NARROW_FLOATS = [
    np.dtype(x)
    for x in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
]
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_OTHERS = ["bool", *_INTEGERS, "float32", "float64", "complex64", "complex128"]
DTYPES = {x.name: x for x in (*map(np.dtype, _OTHERS), *_NARROW_FLOATS)}
"""Number types by name that files may hold."""


class UnreadableError(ValueError):
    """What is wrong with a file, in words that follow its path."""


class Leaf(NamedTuple):
    """One array of a file.

    Attributes:
      shape: As the file declares it, checked against the size of the file.
      dtype: Of the values as stored.
      read: Gives the values, mapped from the file where the format allows it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def given_dtype(dtype: np.dtype) -> np.dtype:
    """The type in which stored values are handed out: narrow floats as float32, native bytes."""
    return np.dtype(np.float32) if dtype in _NARROW_FLOATS else dtype.newbyteorder("=")


def map_file(path: Path) -> np.ndarray:
    """A file as bytes that are read when touched; one map serves all its arrays."""
    return np.memmap(path, np.uint8, mode="r")


def mapped_leaf(
    name: str, data: np.ndarray, start: int, shape: tuple[int, ...], dtype: np.dtype
) -> Leaf:
    """An array that lies as plain bytes in a mapped file, in C order.

    Raises:
      UnreadableError: If it does not lie inside the file.
    """
    stop = start + check_size(name, shape, dtype, limit=len(data))
    if not 0 <= start <= stop <= len(data):
        raise UnreadableError(f"tensor {name!r} must lie inside the file; the file is truncated")
    return Leaf(shape, dtype, lambda: data[start:stop].view(dtype).reshape(shape))


def check_size(name: str, shape: tuple[int, ...], dtype: np.dtype, *, limit: int) -> int:
    """Bytes of an array by its declared shape.

    Raises:
      UnreadableError: If a dimension is negative or the whole is larger than `limit` bytes.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or max(shape, default=0) >= 1 << 62 or num_bytes > limit:
        raise UnreadableError(
            f"tensor {name!r} declares shape {shape} of {dtype.name}, "
            f"more than the {limit} bytes that can be there"
        )
    return num_bytes


def add_leaf(leaves: dict[str, Leaf], name: str, leaf: Leaf) -> None:
    """Adds an array under its name.

    Raises:
      UnreadableError: If the name is taken, not printable, or reads like a path out of the folder.
    """
    if not name.isprintable() or not name or name.startswith("/") or ".." in name.split("/"):
        raise UnreadableError(f"tensor {name!r} must have a printable name that is no outward path")
    if name in leaves:
        raise UnreadableError(f"tensor {name!r} is there twice")
    leaves[name] = leaf


def walk(tree: Any) -> Iterator[tuple[str, Any]]:
    """Values of nested dicts, lists and tuples with their keys joined by ``/``, in order.

    Raises:
      UnreadableError: If nesting or number of entries passes the limits.
    """
    stack: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    num_items = 1
    while stack:
        path, node = stack.pop()
        if isinstance(node, Mapping):
            children = [((*path, str(key)), child) for key, child in node.items()]
        elif isinstance(node, list | tuple) and not isinstance(node, Leaf):
            children = [((*path, str(i)), child) for i, child in enumerate(node)]
        else:
            yield "/".join(path), node
            continue
        num_items += len(children)
        if len(path) >= MAX_DEPTH or num_items > MAX_ITEMS:
            raise UnreadableError(
                f"must be nested at most {MAX_DEPTH} deep with at most {MAX_ITEMS} entries"
            )
        stack.extend(reversed(children))


@contextlib.contextmanager
def one_line_errors(path: Path, format_name: str) -> Iterator[None]:
    """Turns whatever a parser raises on a bad file into one line; lets no warning out.

    Raises:
      ValueError: Names the file, the format it was taken for and the parser's reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadableError as error:
        raise ValueError(f"{path}: {_short(str(error))}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {_short(str(error))}") from error
    except Exception as error:  # parsers of damaged bytes raise nearly every type there is
        reason = f"{type(error).__name__}: {_short(str(error))}"
        raise ValueError(f"{path}: must be a readable {format_name} file, got {reason}") from error


def _short(text: str, length: int = 300) -> str:
    """Printable, on one line, not longer than a reader cares to read."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * length]).split())
    return line if len(line) <= length else f"{line[:length]}..."
