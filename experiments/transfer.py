"""Which tickets transfer, and does the flow of a ticket tell?

Finds the tickets of several tasks by IMP, trains every ticket on every task at several densities,
beside the target's own ticket, the dense network, random masks of the same densities and the same
masks on fresh weights, and scores what predicts the outcome. Heads are not pruned, and are drawn
afresh on each target.

    python -m experiments.transfer                          # ten tasks of digits, 5 seeds
    python -m experiments.transfer --tasks digits digits+classes=0-4 digits+permute=3
    python -m experiments.transfer --model resnet14 --width 0.5
    python -m experiments.transfer --preset cifar --device gpu

The default trains 18,400 networks in 8 minutes on 2 quiet CPU cores, 2.3 GB. Of the weights of the
body 26 % kept, transferred tickets lose 1.7 points to the target's own ticket and are 34 points
above random masks of their layer-wise densities; no predictor made of flows beats its control, the
shares of kept weights. ResNet-14 takes hours; an estimate is printed first. Every finished cell is
on disk: the same command continues an unfinished experiment, and with further tasks trains only
what is new.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5; Morcos et al., arXiv:1906.02773.
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.progress import make_bars
from experiments.shell.study import AS_IS, duration_text
from experiments.studies.transfer import page as transfer_page
from experiments.studies.transfer.cells import Cell, CellTable, CellTrainer, plan_cells
from experiments.studies.transfer.config import PRESETS, Config
from experiments.studies.transfer.search import search_minimal_densities
from experiments.studies.transfer.tasks import Task, prepare_tasks, run_sources
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.runs.files import read_json, write_json
from imp_rg.runs.folder import RunFolder, config_hash, describe_environment, has_finished
from imp_rg.types import is_accelerator

SECONDS_A_LEVEL = 0.5
"""Of a source, beyond training: nulls, tables, tickets, checkpoint."""

EXTENDABLE = ("tasks", "levels_compared", "minimal_density")
"""Settings that may differ from those an experiment was begun with."""


def run(config: Config) -> Path:
    """Trains what is missing, then reports; returns the folder of the results."""
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 120)
    use_device(config.run_config(config.task_names[0]))
    path = config.out or _default_folder(config)
    config = _with_earlier(config, path)
    if _is_finished(config, path):
        console.print("already finished; reporting again")
    else:
        # Before anything is written: a wrong setting leaves no folder behind.
        tasks = prepare_tasks(config, path, Console(quiet=True))
        _open_folder(config, path)
        _train(config, path, tasks, console, began)
    page = transfer_page.report(path, console)
    console.print(f"report: {page}", **AS_IS)
    return path


def _with_earlier(config: Config, path: Path) -> Config:
    """Adds the tasks and levels that the folder has already."""
    there = {} if config.fresh else _settings_there(path)
    tasks = (*there.get("tasks", ()), *config.task_names)
    levels = {*there.get("levels_compared", ()), *config.levels_compared}
    return dataclasses.replace(
        config, tasks=tuple(dict.fromkeys(tasks)), levels_compared=tuple(sorted(levels))
    )


def _settings_there(path: Path) -> dict[str, Any]:
    """Settings of the experiment in the folder; empty if there is none."""
    there = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    is_ours = isinstance(there, dict) and there.get("experiment") == "transfer"
    return there if is_ours else {}


def _is_finished(config: Config, path: Path) -> bool:
    is_same = _settings_there(path) == config.settings()
    if config.fresh or not is_same or not has_finished(path):
        return False
    table = CellTable(path / "cells.csv", config.seed_list)
    planned = (cell for target in config.task_names for cell in plan_cells(config, target))
    return all(cell in table for cell in planned)


def _open_folder(config: Config, path: Path) -> None:
    """Opens or begins the folder; what makes the experiment what it is must not differ."""
    settings, there = config.settings(), _settings_there(path)
    if config.fresh and there:
        (path / "cells.csv").unlink(missing_ok=True)
    begun_with = {} if config.fresh else {name: there[name] for name in EXTENDABLE if there}
    RunFolder(path, settings | begun_with, fresh=config.fresh)
    write_json(path / "config.json", settings)


def _train(config: Config, path: Path, tasks: list[Task], console: Console, began: float) -> None:
    """Sources that have not run, then cells that are missing; each is on disk when it is done."""
    environment = path / "environment.json"
    earlier = read_json(environment)["seconds"] if environment.is_file() else 0.0
    command = shlex.join(["python", "-m", "experiments.transfer", *sys.argv[1:]])

    def describe(is_finished: bool) -> None:
        seconds = earlier + time.monotonic() - began
        described = describe_environment(command=command, seconds=seconds)
        write_json(environment, described | {"finished": is_finished})

    describe(is_finished=False)
    table = CellTable(path / "cells.csv", config.seed_list)
    cells = [c for task in tasks for c in plan_cells(config, task.name) if c not in table]
    _print_estimate(config, tasks, len(cells), console)
    run_sources(config, tasks, console, command=command)
    describe(is_finished=False)
    trainer, workers = CellTrainer(config, tasks), _num_workers(tasks[0])
    _train_cells(cells, trainer, table, console, workers)
    if config.minimal_density == "search":
        search_minimal_densities(config, trainer, table, workers)
    table.sort(config.task_names)
    describe(is_finished=True)


def _train_cells(
    cells: Sequence[Cell],
    trainer: CellTrainer,
    table: CellTable,
    console: Console,
    workers: int,
) -> None:
    """Target by target: the first cell of each compiles, the others share its program."""
    with make_bars(console) as bars, ThreadPoolExecutor(workers) as pool:
        bar = bars.add_task("cells", total=len(cells))

        def train(cell: Cell) -> None:
            if cli.interrupted.is_set():
                raise KeyboardInterrupt
            table.add(cell, trainer.density(cell), trainer.train(cell))
            bars.advance(bar)

        for target in dict.fromkeys(cell.target for cell in cells):
            began = time.monotonic()
            first, *others = (cell for cell in cells if cell.target == target)
            bars.update(bar, description=target)
            train(first)
            list(pool.map(train, others))
            seconds = time.monotonic() - began
            console.print(f"target {target}: {1 + len(others)} cells, {seconds:.0f} s", **AS_IS)


def _num_workers(task: Task) -> int:
    """Cells at a time: one a core where a cell is one program, else a cell fills all cores."""
    is_one_program = task.setup.execution.strategy == "vmap" and not is_accelerator()
    return num_usable_cores() if is_one_program else 1


def _print_estimate(config: Config, tasks: list[Task], num_cells: int, console: Console) -> None:
    """Says what is to be done, and how long it will take at the speed of a first cell."""
    missing = [task for task in tasks if config.fresh or not has_finished(task.folder)]
    if not missing and not num_cells:
        return
    a_cell = tasks[0].estimate()
    levels = (config.levels + 1) * len(missing)
    seconds = levels * (a_cell + SECONDS_A_LEVEL) + num_cells * a_cell / _num_workers(tasks[0])
    networks = config.seeds * (levels + num_cells)
    console.print(
        f"{len(tasks)} tasks: {len(missing)} sources of {config.levels + 1} levels and "
        f"{num_cells:,} cells to train, {networks:,} networks; about {duration_text(seconds)}",
        **AS_IS,
    )


def _default_folder(config: Config) -> Path:
    settings = {k: v for k, v in config.settings().items() if k not in EXTENDABLE}
    first = config.task_names[0].partition("+")[0]
    name = f"{Path(first.removeprefix('npz:')).stem}-{config.model}-{config_hash(settings)}"
    return Path("runs") / "transfer" / name


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.transfer")
