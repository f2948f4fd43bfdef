"""The trainings of `experiments.elastic`: a moved ticket, or a control of it, at its target.

In: routes, source runs and target setups. Out: ``cells.csv``, one row per training and seed. What a
training samples depends on its name alone, so order and interruptions do not matter, and more
depths, maps or densities add trainings to those that are there.
"""

import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from experiments.shell.cli import stop_if_asked
from experiments.shell.ledger import Ledger
from experiments.shell.progress import Progress
from experiments.shell.study import Study
from experiments.studies.elastic.config import Route
from experiments.trunk.assemble import Setup
from imp_rg.config import require
from imp_rg.imp.controls import shuffle_masks
from imp_rg.imp.replicates import stack
from imp_rg.models.resnet_cifar import PRUNABLE
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import read_ticket
from imp_rg.tickets.elastic import realised_density, shuffle_copies, transform
from imp_rg.tickets.ticket import Ticket
from imp_rg.types import Key, Keys, Variables

STAGES = ("stage1", "stage2", "stage3")

KINDS = ("ticket", "random", "reinit", "shuffled")
"""The moved ticket; its masks permuted within each tensor; its masks on fresh weights; the masks of
copied blocks permuted."""

KEY = ["source_depth", "target_depth", "block_map", "kind", "level"]
"""Columns that name a training."""

ABOUT = ["density", *(f"density_{stage}" for stage in STAGES), "seed", "test_metric"]
COLUMNS = [*KEY[:2], "map", *KEY[2:], *ABOUT]


class Training(NamedTuple):
    """One network trained at the target, with all seeds.

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

    def __str__(self) -> str:
        return f"{self.route} · {self.kind}"


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


def plan_trainings(routes: Sequence[Route], levels: Mapping[int, Sequence[int]]) -> list[Training]:
    """All trainings, target by target.

    Args:
      routes: Depths and maps.
      levels: Which levels of each source depth are moved.
    """
    planned = [
        Training(route, kind, level)
        for route in sorted(routes, key=lambda route: route.target_depth)
        for level in levels[route.source_depth]
        for kind in KINDS
    ]
    return [one for one in planned if one.kind != "shuffled" or one.route.block_map.copies]


def open_ledger(folder: Path, seeds: Sequence[int], *, fresh: bool = False) -> Ledger:
    """``cells.csv``; a training has a row for every seed with a source ticket."""

    def num_rows(key: tuple[Any, ...]) -> int:
        depth, *_, level = key
        return len(_tickets_there(folder / f"depth{depth}", seeds, level))

    path = folder / "cells.csv"
    return Ledger(path, key=KEY, columns=COLUMNS, num_rows=num_rows, fresh=fresh)


def _tickets_there(run: Path, seeds: Sequence[int], level: int) -> dict[int, Path]:
    """The ticket of every seed that has one."""
    paths = {seed: ticket_path(run, seed, level) for seed in seeds}
    return {seed: path for seed, path in paths.items() if path.exists()}


def train_all(
    missing: Sequence[Training],
    ledger: Ledger,
    folder: Path,
    *,
    setups: Mapping[int, Setup],
    runs: Mapping[int, Path],
    seeds: Sequence[int],
    study: Study,
    fresh: bool = False,
) -> float:
    """Trains one after the other; each is on disk before the next begins.

    Args:
      missing: What is to be trained.
      ledger: ``cells.csv``.
      folder: Where ``timing.csv`` lies.
      setups: Of each depth.
      runs: Finished run of each depth.
      seeds: Of the runs.
      study: The command at work.
      fresh: Forget the times of earlier starts.

    Returns:
      Seconds that all trainings took, in however many starts.
    """
    path, columns = folder / "timing.csv", [*KEY, "seconds"]
    timing = Ledger(path, key=KEY, columns=columns, num_rows=lambda _: 1, fresh=fresh)
    work = sum(training.route.target_depth for training in missing)
    with Progress(study.console, total=work) as progress:
        for i, training in enumerate(missing, 1):
            stop_if_asked()
            began = time.monotonic()
            route = training.route
            rows = train(training, setups[route.target_depth], runs[route.source_depth], seeds)
            if len(rows):  # no seed reached the level
                ledger.add(rows)
                seconds = round(time.monotonic() - began, 2)
                timing.add(pd.DataFrame([[*training.key, seconds]], columns=pd.Index(columns)))
            text = f"training {i}/{len(missing)} · {training} {rows['test_metric'].mean():.1f} %"
            progress.advance(route.target_depth, text)
    ledger.sort(lambda frame: [frame.groupby(KEY).ngroup(), frame["seed"]])
    timing.sort(lambda frame: [frame.groupby(KEY).ngroup()])
    return float(timing.frame()["seconds"].sum())


def train(training: Training, setup: Setup, run: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """Trains all seeds that have a source ticket; their rows of ``cells.csv``.

    House definition.
    """
    paths = _tickets_there(run, seeds, training.level)
    if not paths:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    change_keys, train_keys = _make_keys(training, list(paths))
    target: Variables = jax.eval_shape(setup.init, jax.random.key(0))
    tickets = [
        _make_ticket(key, read_ticket(path), training, setup, target)
        for key, path in zip(change_keys, paths.values(), strict=True)
    ]
    variables, info = setup.scheme.retrain(
        train_keys,
        stack([ticket.rewind for ticket in tickets]),
        stack([ticket.masks for ticket in tickets]),
        setup.train_data,
    )
    metric = setup.scheme.measure(variables, setup.test_data)
    metric = np.where(np.asarray(info.is_finite), metric, np.nan)
    rows = [
        _row(training, seed, ticket, value)
        for seed, ticket, value in zip(paths, tickets, metric, strict=True)
    ]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _make_keys(training: Training, seeds: Sequence[int]) -> tuple[Keys, Keys]:
    """Keys for what a control samples and for F, [seed] each."""
    name = np.uint32(zlib.crc32("-".join(map(str, training.key)).encode()))
    keys = jax.vmap(jax.random.key)(np.array(seeds))
    keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, name)))(keys)
    return keys[:, 0], keys[:, 1]


def _make_ticket(
    key: Key, source: Ticket, training: Training, setup: Setup, target: Variables
) -> Ticket:
    moved = transform(source, training.route.block_map, target=target)
    if training.kind == "random":
        masks = shuffle_masks(key, moved.masks, setup.blocks.prunable)
        return Ticket(moved.rewind, jax.device_get(masks))
    if training.kind == "reinit":
        return Ticket(jax.device_get(setup.init(key)), moved.masks)
    if training.kind == "shuffled":
        return shuffle_copies(key, moved, training.route.block_map)
    return moved


def _row(training: Training, seed: int, ticket: Ticket, metric: float) -> dict[str, Any]:
    density = realised_density(ticket, PRUNABLE)
    return {
        **dict(zip(KEY, training.key, strict=True)),
        "map": training.route.name,
        "density": density.whole,
        **{f"density_{stage}": value for stage, value in density.stages.items()},
        "seed": seed,
        "test_metric": metric,
    }
