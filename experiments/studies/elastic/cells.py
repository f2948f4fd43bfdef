"""The cells of `experiments.elastic`: one moved ticket, or a control of it, trained at the target.

In: routes, source runs and target setups. Out: ``cells.csv``, one row a cell and seed, written
after each cell. What a cell draws depends on its name alone, so order and interruptions do not
matter, and more depths, maps or densities add cells to those that are there.
"""

import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.shell import cli
from experiments.shell.progress import SECONDS_BETWEEN_LINES, make_bars
from experiments.studies.elastic.config import Route
from experiments.trunk.assemble import Setup
from imp_rg.config import require
from imp_rg.imp.controls import shuffle_masks
from imp_rg.imp.replicates import stack
from imp_rg.models.resnet_cifar import PRUNABLE
from imp_rg.runs.files import read_csv, write_csv
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import read_ticket
from imp_rg.tickets.elastic import realised_density, shuffle_copies, transform
from imp_rg.tickets.ticket import Ticket
from imp_rg.types import Key, Keys, Variables

KINDS = ("ticket", "random", "reinit", "shuffled")
"""The moved ticket; its masks permuted within each tensor; its masks on freshly drawn weights; the
masks of copied blocks permuted."""

KEY = ["source_depth", "target_depth", "block_map", "kind", "level"]
"""Columns that name a cell."""


class Cell(NamedTuple):
    """One training at the target, of all seeds.

    Attributes:
      route: Depths and map.
      kind: One of `KINDS`.
      level: Of the source ticket.
    """

    route: Route
    kind: str
    level: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Its values of `KEY`."""
        source, target, _, block_map = self.route
        return source, target, str(block_map), self.kind, self.level


def levels_at(densities: Sequence[float], setup: Setup, depth: int) -> list[int]:
    """The levels whose densities are nearest to these.

    Raises:
      ValueError: If a density is more than half a pruning away from every level.
    """
    reached = setup.num_kept / setup.num_kept[0]
    half_step = np.abs(np.diff(np.log(reached))).max() / 2
    found = set()
    for density in densities:
        require(density > 0, "densities", "must be positive", density)
        distance = np.abs(np.log(reached / density))
        rule = (
            f"the tickets of ResNet-{depth} reach {reached[-1]:.4g} to 1 in {len(reached) - 1} "
            "levels"
        )
        require(distance.min() <= half_step * (1 + 1e-6), "densities", rule, density)
        found.add(int(distance.argmin()))
    return sorted(found)


def plan_cells(routes: Sequence[Route], levels: Mapping[int, Sequence[int]]) -> list[Cell]:
    """All cells, target by target.

    Args:
      routes: Ways between depths.
      levels: Which levels of each source depth are moved.
    """
    cells = [
        Cell(route, kind, level)
        for route in sorted(routes, key=lambda route: route.target_depth)
        for level in levels[route.source_depth]
        for kind in KINDS
    ]
    return [cell for cell in cells if cell.kind != "shuffled" or cell.route.block_map.copies]


def missing_cells(cells: Sequence[Cell], path: Path) -> list[Cell]:
    """Those that ``cells.csv`` does not hold."""
    done = (
        set() if not path.exists() else set(read_csv(path)[KEY].itertuples(index=False, name=None))
    )
    return [cell for cell in cells if cell.key not in done]


def train_cells(
    cells: Sequence[Cell],
    *,
    setups: Mapping[int, Setup],
    runs: Mapping[int, Path],
    seeds: Sequence[int],
    folder: Path,
    console: Console,
) -> None:
    """Trains what is missing; each cell is on disk before the next begins.

    Args:
      cells: All that are wanted.
      setups: Of each depth.
      runs: Finished run of each depth.
      seeds: Of the runs.
      folder: Where ``cells.csv`` and ``timing.csv`` lie.
      console: For progress.
    """
    missing = missing_cells(cells, folder / "cells.csv")
    with _Progress(missing, console) as progress:
        for cell in missing:
            if cli.interrupted.is_set():
                raise KeyboardInterrupt
            began = time.monotonic()
            run = runs[cell.route.source_depth]
            rows = train_cell(cell, setup=setups[cell.route.target_depth], run=run, seeds=seeds)
            _append(folder / "cells.csv", rows)
            seconds = round(time.monotonic() - began, 2)
            _append(folder / "timing.csv", pd.DataFrame([[*cell.key, seconds]],
                                                        columns=[*KEY, "seconds"]))  # fmt: skip
            progress.end_cell(cell, float(rows["test_metric"].mean()) if len(rows) else np.nan)


def train_cell(cell: Cell, *, setup: Setup, run: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """Trains all seeds of a cell that have a source ticket; their rows of ``cells.csv``."""
    paths = {seed: ticket_path(run, seed, cell.level) for seed in seeds}
    there = [seed for seed, path in paths.items() if path.exists()]
    if not there:
        return pd.DataFrame()
    change_keys, train_keys = _cell_keys(cell, there)
    tickets = [
        _make_ticket(key, read_ticket(paths[seed]), cell, setup)
        for key, seed in zip(change_keys, there, strict=True)
    ]
    variables, info = setup.scheme.retrain(
        train_keys,
        stack([ticket.rewind for ticket in tickets]),
        stack([ticket.masks for ticket in tickets]),
        setup.train_data,
    )
    metric = setup.scheme.measure(variables, setup.test_data)
    metric = np.where(np.asarray(info.is_finite), metric, np.nan)
    return pd.DataFrame(
        _row(cell, seed, ticket, value)
        for seed, ticket, value in zip(there, tickets, metric, strict=True)
    )


def _cell_keys(cell: Cell, seeds: Sequence[int]) -> tuple[Keys, Keys]:
    """Keys for what a control draws and for the training, [seed] each."""
    name = np.uint32(zlib.crc32("-".join(map(str, cell.key)).encode()))
    keys = jax.vmap(jax.random.key)(np.array(seeds))
    keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, name)))(keys)
    return keys[:, 0], keys[:, 1]


def _make_ticket(key: Key, source: Ticket, cell: Cell, setup: Setup) -> Ticket:
    target: Variables = jax.eval_shape(setup.init, key)
    moved = transform(source, cell.route.block_map, target=target)
    if cell.kind == "random":
        masks = shuffle_masks(key, moved.masks, setup.blocks.prunable)
        return Ticket(moved.rewind, jax.device_get(masks))
    if cell.kind == "reinit":
        return Ticket(jax.device_get(setup.init(key)), moved.masks)
    if cell.kind == "shuffled":
        return shuffle_copies(key, moved, cell.route.block_map)
    return moved


def _row(cell: Cell, seed: int, ticket: Ticket, metric: float) -> dict[str, Any]:
    density = realised_density(ticket, PRUNABLE)
    return {
        "source_depth": cell.route.source_depth,
        "target_depth": cell.route.target_depth,
        "map": cell.route.name,
        "block_map": str(cell.route.block_map),
        "kind": cell.kind,
        "level": cell.level,
        "density": density.whole,
        **{f"density_{stage}": value for stage, value in density.stages.items()},
        "seed": seed,
        "test_metric": metric,
    }


def _append(path: Path, rows: pd.DataFrame) -> None:
    """Adds rows in the place that their names give them."""
    if rows.empty:
        return
    there = [read_csv(path)] if path.exists() else []
    order = [*KEY, "seed"] if "seed" in rows else KEY
    write_csv(path, pd.concat([*there, rows]).sort_values(order))


class _Progress:
    """A bar on a terminal, throttled lines elsewhere; time goes with the target's depth."""

    def __init__(self, cells: Sequence[Cell], console: Console):
        self._console, self._bars = console, make_bars(console)
        self._total = sum(cell.route.target_depth for cell in cells)
        self._task = self._bars.add_task("cells", total=self._total)
        self._done, self._num_done, self._num = 0, 0, len(cells)
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> "_Progress":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def end_cell(self, cell: Cell, metric: float) -> None:
        self._done += cell.route.target_depth
        self._num_done += 1
        text = f"cell {self._num_done}/{self._num} · {cell.route} · {cell.kind} {metric:.1f} %"
        self._bars.update(self._task, completed=self._done, description=text)
        now = time.monotonic()
        is_due = self._num_done == self._num or now - self._last_line > SECONDS_BETWEEN_LINES
        if not self._console.is_terminal and is_due:
            self._last_line = now
            left = (now - self._began) * (self._total / self._done - 1)
            minutes, seconds = divmod(round(left), 60)
            self._console.print(f"{text} · {minutes} min {seconds:02d} s left", highlight=False)
