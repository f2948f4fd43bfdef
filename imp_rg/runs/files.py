"""Atomic writes: a reader, or the next start after a crash, sees the old file or the new one."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file through a temporary one beside it, flushed to disk before the rename.

    Raises:
      OSError: If it cannot be written, in one line; a file that was there stays as it is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after the rename
            temporary.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed `write_bytes` leaves behind."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_temporary(folder: Path) -> None:
    """Removes what killed writers left in a folder and below."""
    for path in filter(is_temporary, folder.rglob(".*.tmp")):
        path.unlink()


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Writes a table; floats in the shortest form that reads back to the same bits."""
    write_bytes(path, frame.to_csv(index=False, lineterminator="\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      ValueError: If the file is not JSON, in one line.
    """
    try:
        return json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: must be a readable JSON file, got {error}") from error


def read_csv(path: Path) -> pd.DataFrame:
    """Reads a table; a block may be called "null" or "NA": only empty cells and nan are missing.

    Raises:
      ValueError: If the file is not a table, in one line.
    """
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: must be a CSV table, got {error}") from error
