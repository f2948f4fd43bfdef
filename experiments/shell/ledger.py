"""Finished trainings in a CSV file, which survives ``kill -9``."""

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from imp_rg.runs.files import read_csv, write_bytes, write_csv


class Ledger:
    """A file with one row a training and seed; a training is known by its key columns.

    Rows are appended and flushed to disk training by training; what a killed process left of an
    unfinished one is removed when the file is opened. Safe to use from several threads.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: Sequence[str],
        columns: Sequence[str],
        num_rows: Callable[[tuple[Any, ...]], int],
        fresh: bool = False,
    ):
        """Opens or begins the file.

        Args:
          path: ``cells.csv``.
          key: Columns that name a training.
          columns: All of them in their order, the measured one last.
          num_rows: How many rows a training has.
          fresh: Throw away what is there.

        Raises:
          ValueError: In one line, if the file holds something else.
        """
        self._path, self._key, self._columns = path, list(key), list(columns)
        self._lock = threading.Lock()
        self._values: dict[tuple[Any, ...], tuple[float, ...]] = {}
        content = path.read_bytes() if path.exists() and not fresh else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            write_csv(path, pd.DataFrame(columns=pd.Index(self._columns)))
        elif whole != content:
            write_bytes(path, whole)
        frame = self.frame()
        if list(frame.columns) != self._columns:
            raise ValueError(f"{path}: must have the columns {', '.join(self._columns)}")
        self._note(frame)
        cut_off = {name for name, rows in self._values.items() if len(rows) != num_rows(name)}
        if cut_off:
            is_whole = [name not in cut_off for name in _names(frame, self._key)]
            write_csv(path, frame[is_whole])
            self._values = {k: v for k, v in self._values.items() if k not in cut_off}

    def frame(self) -> pd.DataFrame:
        """All rows."""
        return read_csv(self._path)

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return tuple(key) in self._values

    def __getitem__(self, key: tuple[Any, ...]) -> Float[np.ndarray, " row"]:
        """What a training measured, in the order of its rows."""
        return np.array(self._values[tuple(key)])

    def _note(self, rows: pd.DataFrame) -> None:
        found: dict[tuple[Any, ...], list[float]] = {}
        for name, value in zip(_names(rows, self._key), rows[self._columns[-1]], strict=True):
            found.setdefault(name, []).append(value)
        self._values |= {name: tuple(values) for name, values in found.items()}

    def add(self, rows: pd.DataFrame) -> None:
        """Appends a finished training; it is on disk when this returns."""
        text = io.StringIO()
        rows[self._columns].to_csv(text, index=False, header=False, lineterminator="\n")
        with self._lock, open(self._path, "ab") as file:
            end = file.tell()
            try:
                file.write(text.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:  # a full disk: what is whole stays readable
                os.truncate(self._path, end)
                raise
            self._note(rows)

    def sort(self, keys: Callable[[pd.DataFrame], Sequence[Any]]) -> None:
        """Brings the rows into an order that does not tell when they were trained.

        Args:
          keys: Of a frame, what it is sorted by, the first counting most.
        """
        frame = self.frame()
        write_csv(self._path, frame.iloc[np.lexsort([*keys(frame)][::-1])])


def _names(frame: pd.DataFrame, key: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return frame[list(key)].itertuples(index=False, name=None)
