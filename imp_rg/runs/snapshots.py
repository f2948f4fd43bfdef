"""Where a level stands, in files of its own: what long levels need to go on after a kill.

In: flat dicts of arrays under names. Out: the same, or nothing where a file is damaged.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imp_rg.runs.checkpoints import digest
from imp_rg.runs.files import remove_temporary, write_bytes

_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
_SEAL = "sha256 of the others"


class SnapshotFolder:
    """A folder of snapshots, the oldest of which make room for new ones."""

    def __init__(self, folder: Path, *, keep: int):
        """Opens a folder; it is made when something is saved.

        Args:
          folder: Where the files lie.
          keep: How many stay.
        """
        self._folder, self._keep = folder, keep

    def save(self, name: str, flat: Mapping[str, np.ndarray]) -> None:
        """Writes or replaces the snapshot of a name.

        Raises:
          OSError: If it cannot be written; one that was there stays.
        """
        content = io.BytesIO()
        arrays: dict[str, Any] = dict(flat) | {_SEAL: np.asarray(digest(flat))}
        np.savez(content, **arrays)
        write_bytes(self._path(name), content.getvalue())
        for path in self._oldest_first()[: -self._keep]:
            path.unlink()

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a name; None if it has no snapshot or a damaged one."""
        try:
            content = io.BytesIO(self._path(name).read_bytes())
            with np.load(content, allow_pickle=False) as file:
                flat = {key: file[key] for key in file.files}
        except _UNREADABLE:
            return None
        return flat if str(flat.pop(_SEAL, "")) == digest(flat) else None

    def clear(self) -> None:
        """Removes all snapshots, and the folder if nothing else is in it."""
        if not self._folder.is_dir():
            return
        remove_temporary(self._folder)
        for path in self._oldest_first():
            path.unlink()
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"

    def _oldest_first(self) -> list[Path]:
        return sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
