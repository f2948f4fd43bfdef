"""Cells of a transfer experiment: one ticket or control, trained on one target, for all seeds.

In: tasks whose tickets lie on disk. Out: `CellTable`, a CSV file that every finished cell is added
to, and that survives being killed.
"""

import functools
import io
import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.studies.transfer.config import Config
from experiments.studies.transfer.tasks import Task
from imp_rg.imp.replicates import stack
from imp_rg.runs.files import read_csv, write_bytes, write_csv
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import read_ticket
from imp_rg.tickets.ticket import Ticket
from imp_rg.tickets.transfer import transfer
from imp_rg.types import Float, Keys, Masks, Variables

TICKET_BYTES = 2**30
"""Memory for tickets that were read; others are read again when needed."""


class Cell(NamedTuple):
    """What is trained, for all seeds at once.

    Attributes:
      target: Task that is trained on.
      source: Task whose ticket it is; the target itself for ``dense``.
      kind: Of `imp_rg.tickets.transfer.Kind`.
      level: Of the ticket; 0 for ``dense``.
    """

    target: str
    source: str
    kind: str
    level: int


COLUMNS = (*Cell._fields, "density", "seed", "test_metric")


def plan_cells(config: Config, target: str) -> list[Cell]:
    """Cells of one target: dense, and the ticket of every source with its controls."""
    cells = [Cell(target, target, "dense", 0)]
    for source in config.task_names:
        is_own = source == target and config.minimal_density != "none"
        levels = range(1, config.levels + 1) if is_own else config.ticket_levels
        cells += [Cell(target, source, "ticket", level) for level in levels]
        for kind in ("random", "reinit"):
            cells += [Cell(target, source, kind, n) for n in sorted(config.levels_compared)]
    return cells


class CellTable:
    """The file ``cells.csv``, one row a cell and seed.

    Rows are appended and flushed to disk cell by cell; what a killed process left of an unfinished
    cell is removed when the file is opened. Safe to use from several threads.
    """

    def __init__(self, path: Path, seeds: Sequence[int]):
        """Opens or begins the file.

        Raises:
          ValueError: In one line, if the file holds something else.
        """
        self._path, self._seeds, self._lock = path, tuple(seeds), threading.Lock()
        self._metrics: dict[Cell, tuple[float, ...]] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            write_csv(path, pd.DataFrame(columns=pd.Index(COLUMNS)))
        elif whole != content:
            write_bytes(path, whole)
        self._read()

    def _read(self) -> None:
        frame = read_csv(self._path)
        if tuple(frame.columns) != COLUMNS:
            raise ValueError(f"{self._path}: must have the columns {', '.join(COLUMNS)}")
        is_whole = frame.groupby([*Cell._fields])["seed"].transform("size") == len(self._seeds)
        if not is_whole.all():
            write_csv(self._path, frame[is_whole])
        by_cell: dict[Cell, list[float]] = {}
        for row in frame[is_whole].sort_values("seed").to_dict("records"):
            cell = Cell(*(row[name] for name in Cell._fields))
            by_cell.setdefault(cell, []).append(row["test_metric"])
        self._metrics = {cell: tuple(values) for cell, values in by_cell.items()}

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._metrics

    def __getitem__(self, cell: Cell) -> Float[np.ndarray, " seed"]:
        return np.array(self._metrics[cell])

    def add(self, cell: Cell, density: float, metrics: Float[np.ndarray, " seed"]) -> None:
        """Appends a finished cell; it is on disk when this returns."""
        values = metrics.tolist()
        rows = [(*cell, density, *row) for row in zip(self._seeds, values, strict=True)]
        text = io.StringIO()
        pd.DataFrame(rows).to_csv(text, index=False, header=False, lineterminator="\n")
        with self._lock, open(self._path, "ab") as file:
            end = file.tell()
            try:
                file.write(text.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:  # a full disk: what is whole stays readable
                os.truncate(self._path, end)
                raise
            self._metrics[cell] = tuple(values)

    def sort(self, tasks: Sequence[str]) -> None:
        """Brings the rows into the order of the tasks, whatever order they were trained in."""
        frame = read_csv(self._path)
        rank = {task: i for i, task in enumerate(tasks)}
        kinds = {kind: i for i, kind in enumerate(("dense", "ticket", "random", "reinit"))}
        keys = [frame["target"].map(rank), frame["source"].map(rank), frame["kind"].map(kinds)]
        order = np.lexsort([frame["seed"], frame["level"], *reversed(keys)])
        write_csv(self._path, frame.iloc[order])


class CellTrainer:
    """Trains cells; a cell comes out the same whatever is trained before or beside it."""

    def __init__(self, config: Config, tasks: Iterable[Task]):
        """Takes tasks whose sources have run."""
        self._config = config
        self._tasks = {task.name: task for task in tasks}
        task = next(iter(self._tasks.values()))
        self._seeds = task.config.seed_list
        size = sum(leaf.size * 5 for leaf in jax.tree.leaves(task.setup.shapes))  # float32 and bool
        capacity = max(1, TICKET_BYTES // (size * len(self._seeds)))
        self._tickets = functools.lru_cache(maxsize=capacity)(self._read_tickets)

    def density(self, cell: Cell) -> float:
        """Kept fraction of the body at the cell's level."""
        num_kept = self._tasks[cell.source].setup.num_kept
        return float(num_kept[cell.level] / num_kept[0])

    def train(self, cell: Cell) -> Float[np.ndarray, " seed"]:
        """Metric in percent of every seed; NaN without a ticket or with a loss that is not finite.

        The head and the order of the data are those of target and seed: whatever else is trained
        there differs by its body alone.
        """
        target, source = self._tasks[cell.target], self._tasks[cell.source]
        metrics = np.full(len(self._seeds), np.nan)
        present, tickets = self._tickets(cell.source, cell.level)
        if tickets is None:
            return metrics
        keys = _keys(cell.target, np.asarray(self._seeds)[present])
        drawn = target.draw(keys[:, 0])
        rewind, masks = _start(
            _fold(keys[:, 2], f"{cell.source}|{cell.level}"),
            tickets,
            drawn,
            kind=cell.kind,
            prunable=source.setup.blocks.prunable,
            redrawn=self._config.redrawn,
        )
        variables, info = target.trainer.retrain(keys[:, 1], rewind, masks, target.setup.train_data)
        found = target.trainer.measure(variables, target.setup.test_data)
        metrics[present] = np.where(np.asarray(info.is_finite), found, np.nan)
        return metrics

    def _read_tickets(
        self, source: str, level: int
    ) -> tuple[np.ndarray, tuple[Variables, Masks] | None]:
        """Positions of the seeds that have a ticket, and their tickets, stacked; None if none."""
        folder = self._tasks[source].folder
        paths = [ticket_path(folder, seed, level) for seed in self._seeds]
        present = np.flatnonzero([path.is_file() for path in paths])
        tickets = [read_ticket(paths[i]) for i in present]
        return present, stack([(t.rewind, t.masks) for t in tickets]) if tickets else None


def _keys(target: str, seeds: np.ndarray) -> Keys:
    """Keys of fresh weights, of training and of permutations, [seed 3]."""

    def split(seed):
        return jax.random.split(jax.random.fold_in(jax.random.key(seed), _hash(target)), 3)

    return jax.vmap(split)(jnp.asarray(seeds))


def _fold(keys: Keys, text: str) -> Keys:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, _hash(text))


def _hash(text: str) -> int:
    """A number for a name, the same in every process."""
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


@functools.partial(jax.jit, static_argnames=("kind", "prunable", "redrawn"))
def _start(keys, tickets, drawn, *, kind, prunable, redrawn):
    """`transfer` for every seed."""

    def start(key, ticket, drawn):
        found = transfer(key, Ticket(*ticket), drawn, kind=kind, prunable=prunable, redrawn=redrawn)
        return found.rewind, found.masks

    return jax.vmap(start)(keys, tickets, drawn)
