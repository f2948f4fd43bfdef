"""Trainings of a transfer experiment: one ticket or control, trained on one target, all seeds.

In: sources whose tickets lie on disk. Out: ``cells.csv``, one row per training and seed.
"""

import functools
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.shell.cli import stop_if_asked
from experiments.shell.ledger import Ledger
from experiments.shell.progress import Progress
from experiments.shell.study import Study
from experiments.studies.transfer.config import Config
from experiments.studies.transfer.sources import Source
from imp_rg.imp.replicates import num_usable_cores, stack
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import read_ticket
from imp_rg.tickets.ticket import Ticket
from imp_rg.tickets.transfer import transfer
from imp_rg.types import Float, Keys, Masks, Variables, is_accelerator

TICKET_BYTES = 2**30
"""Memory for tickets that were read; others are read again when needed."""

KINDS = ("dense", "ticket", "random", "reinit")


class Training(NamedTuple):
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


COLUMNS = (*Training._fields, "density", "seed", "test_metric")


def plan_trainings(config: Config, target: str) -> list[Training]:
    """Trainings of one target: dense, and the ticket of every source with its controls."""
    planned = [Training(target, target, "dense", 0)]
    for source in config.task_names:
        is_own = source == target and config.minimal_density != "none"
        levels = range(1, config.levels + 1) if is_own else config.ticket_levels
        planned += [Training(target, source, "ticket", level) for level in levels]
        for kind in ("random", "reinit"):
            planned += [Training(target, source, kind, n) for n in sorted(config.levels_compared)]
    return planned


def missing_trainings(config: Config, ledger: Ledger) -> list[Training]:
    """What is planned and not there, target by target."""
    planned = (one for target in config.task_names for one in plan_trainings(config, target))
    return [training for training in planned if training not in ledger]


def open_ledger(folder: Path, seeds: Sequence[int], *, fresh: bool = False) -> Ledger:
    """``cells.csv``."""
    return Ledger(
        folder / "cells.csv",
        key=Training._fields,
        columns=COLUMNS,
        num_rows=lambda _: len(seeds),
        fresh=fresh,
    )


def sort_ledger(ledger: Ledger, tasks: Sequence[str]) -> None:
    """Brings the rows into the order of the tasks, whatever order they were trained in."""
    rank, kinds = ({name: i for i, name in enumerate(names)} for names in (tasks, KINDS))
    ledger.sort(
        lambda frame: [
            frame["target"].map(rank),
            frame["source"].map(rank),
            frame["kind"].map(kinds),
            frame["level"],
            frame["seed"],
        ]
    )


class Trainer:
    """Trains; a training comes out the same whatever is trained before or beside it."""

    def __init__(self, config: Config, sources: Iterable[Source], ledger: Ledger):
        """Takes sources that have run, and the ledger that results are added to."""
        self._redrawn, self._ledger = config.redrawn, ledger
        self._sources = {source.name: source for source in sources}
        first = next(iter(self._sources.values()))
        self._seeds = first.config.seed_list
        # One at a time per core where a training is one program, else one fills all cores.
        is_one_program = first.setup.execution.strategy == "vmap" and not is_accelerator()
        self.num_workers = num_usable_cores() if is_one_program else 1
        size = sum(leaf.size * 5 for leaf in jax.tree.leaves(first.setup.shapes))  # float32, bool
        capacity = max(1, TICKET_BYTES // (size * len(self._seeds)))
        self._tickets = functools.lru_cache(maxsize=capacity)(self._read_tickets)

    def density(self, training: Training) -> float:
        """Kept fraction of the body at the level of a training."""
        num_kept = self._sources[training.source].setup.num_kept
        return float(num_kept[training.level] / num_kept[0])

    def metric(self, training: Training) -> Float[np.ndarray, " seed"]:
        """Percent of every seed, from the ledger, or trained and added to it."""
        if training not in self._ledger:
            stop_if_asked()
            about = training._asdict() | {"density": self.density(training), "seed": self._seeds}
            self._ledger.add(pd.DataFrame(about | {"test_metric": self.train(training)}))
        return self._ledger[training]

    def train(self, training: Training) -> Float[np.ndarray, " seed"]:
        """Metric in percent of every seed; NaN without a ticket or with a loss that is not finite.

        The head and the order of the data are those of target and seed: whatever else is trained
        there differs by its body alone.
        """
        target, source = self._sources[training.target], self._sources[training.source]
        metrics = np.full(len(self._seeds), np.nan)
        present, tickets = self._tickets(training.source, training.level)
        if tickets is None:
            return metrics
        keys = _make_keys(training.target, np.asarray(self._seeds)[present])
        rewind, masks = _start(
            _fold(keys[:, 2], f"{training.source}|{training.level}"),
            tickets,
            target.sample(keys[:, 0]),
            kind=training.kind,
            prunable=source.setup.blocks.prunable,
            redrawn=self._redrawn,
        )
        variables, info = target.trainer.retrain(keys[:, 1], rewind, masks, target.setup.train_data)
        found = target.trainer.measure(variables, target.setup.test_data)
        metrics[present] = np.where(np.asarray(info.is_finite), found, np.nan)
        return metrics

    def _read_tickets(
        self, source: str, level: int
    ) -> tuple[np.ndarray, tuple[Variables, Masks] | None]:
        """Positions of the seeds that have a ticket, and their tickets, stacked; None if none."""
        folder = self._sources[source].folder
        paths = [ticket_path(folder, seed, level) for seed in self._seeds]
        present = np.flatnonzero([path.is_file() for path in paths])
        tickets = [read_ticket(paths[i]) for i in present]
        return present, stack([(t.rewind, t.masks) for t in tickets]) if tickets else None


def train_all(missing: Sequence[Training], trainer: Trainer, study: Study) -> None:
    """Target by target: the first training of each compiles, the others share its program."""
    progress = Progress(study.console, total=len(missing))
    with progress, ThreadPoolExecutor(trainer.num_workers) as pool:

        def train(training: Training) -> None:
            trainer.metric(training)
            progress.advance(1, f"target {training.target}")

        for target in dict.fromkeys(training.target for training in missing):
            first, *others = (training for training in missing if training.target == target)
            train(first)
            list(pool.map(train, others))


def _make_keys(target: str, seeds: np.ndarray) -> Keys:
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
def _start(keys, tickets, fresh, *, kind, prunable, redrawn):
    """`transfer` for every seed."""

    def start(key, ticket, fresh):
        found = transfer(key, Ticket(*ticket), fresh, kind=kind, prunable=prunable, redrawn=redrawn)
        return found.rewind, found.masks

    return jax.vmap(start)(keys, tickets, fresh)
