"""Do tasks share the exponents of a ResNet's stages, and does pre-training bring them together?

Runs iterative magnitude pruning of one network on several tasks of images, from scratch and from
pre-trained weights, one run folder a task and init, and sets the exponents sigma_i of the stages
(the paper's Table 2) and their distances between tasks beside those of null models.

    python -m experiments.vision_flow                                    # parts of CIFAR, 2 cores
    python -m experiments.vision_flow --preset smoke                     # digits, 2 minutes
    python -m experiments.vision_flow --preset short --device gpu        # ResNet-50, CIFAR-10/100
    python -m experiments.vision_flow --preset paper --device gpu --inits scratch resnet50.pth

What each preset runs, for every task from scratch and pre-trained on the other task by labels:

    smoke     ResNet-18 at 1/8 width, digits: 2 seeds, levels 0 to 2 of 100 steps
    default   ResNet-18 at 1/8 width, 10,000 images of CIFAR-10 and of CIFAR-100 at 16x16: 3 seeds,
              levels 0 to 10 of 624 steps; a small stand-in, not the paper's experiment
    short     ResNet-50, CIFAR-10 and CIFAR-100: 1 seed, levels 0 to 10 of 10 epochs
    paper     ResNet-50, CIFAR-10 and CIFAR-100: 3 seeds, levels 0 to 18 of 182 epochs

Expected of CIFAR-10 and CIFAR-100 (Table 2): sigma positive in stages 1 to 3 and negative in stage
4, where the two tasks differ by 0.63 from scratch and by 0.06 pre-trained on ImageNet. Dense
accuracy in the source study: 94.3 and 75.9 %.

Obtained by the default preset (`experiments/results/cifar-parts-resnet18`; 2.3 h of 2 cores
beside other work; dense accuracy 50 and 18 %, so no verdict):

    sigma               stage1   stage2   stage3   stage4
    CIFAR-10, scratch   +0.387   +0.257   +0.076   -0.131
      init null         +0.435   +0.348   +0.153   -0.214
    CIFAR-100, scratch  +0.380   +0.275   +0.099   -0.143
      init null         +0.439   +0.347   +0.152   -0.213

The signs are those of the paper in all four cells, and of their init nulls too; what training adds
is of the opposite sign in every stage. Distance of the tasks: 0.016 from scratch, 0.019
pre-trained on each other, not told apart.

The command says how long it will take. Every cell is an ordinary run folder, finished levels are
kept: the same command continues an unfinished experiment, further tasks and inits add to a finished
one.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5.1 and Table 2; recipe of Chen et al.,
arXiv:2012.06908.
"""

import atexit
import dataclasses
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments import pretrain
from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import AS_IS, duration_text
from experiments.studies.pretrain.assemble import WEIGHTS
from experiments.studies.vision import assemble as vision_assemble
from experiments.studies.vision import page, sources
from experiments.studies.vision.assemble import Body, prepare, read_body, seconds_per_pixel
from experiments.studies.vision.config import PRESETS, SCRATCH, Cell, Config
from experiments.studies.vision.execution import resolve_execution
from experiments.studies.vision.tasks import Task, load_task, train_config, with_execution
from experiments.trunk import run as imp_run
from experiments.trunk.assemble import Setup, headline
from imp_rg.config import TrainConfig, require
from imp_rg.imp.mesh import is_lead, lead_says, start_distributed
from imp_rg.runs.files import read_json, write_json
from imp_rg.runs.folder import RunFolder, config_hash, has_finished

OMITTED = ("out", "fresh", "preset", "save_levels", "no_tickets", "tasks", "inits")
OMITTED += ("data_dir", "pretrain_epochs")
"""Settings that do not make a cell what it is; digests say what data and weights are."""

COMMAND = "experiments.vision_flow"


def run(config: Config) -> Path:
    """Runs or continues the experiment; returns the folder of its cells."""
    if config.distributed:
        rule = "must be scratch or files, pre-trained before, with --distributed"
        require(not config.sources, "inits", rule, tuple(config.sources))
        start_distributed()
    use_device(config.level_config(config.cells[0], TrainConfig()))
    console = Console(width=None if sys.stdout.isatty() else 120, quiet=not is_lead())
    # Before anything is written: a wrong setting leaves no folder behind.
    out = (config.out or _default_folder(config)) if is_lead() else _scratch_folder()
    tasks = {name: load_task(config, name, out) for name in config.tasks}
    bodies = _read_files(config, tasks)
    if config.replicates == "measure":
        config = resolve_execution(config, next(iter(tasks.values())), out, console)
        tasks = {name: with_execution(config, task) for name, task in tasks.items()}
    _say_what_is_left_out(config, console)
    _print_estimate(config, tasks, out, console)
    for cell in config.cells:
        if cell.init in config.sources and cell.init not in bodies:
            weights = _pretrain(config, cell.init, out, console)
            bodies[cell.init] = read_body(weights, tasks[cell.task])
        _run_cell(config, cell, tasks[cell.task], bodies.get(cell.init), out, console)
        _list_cells(config, tasks, out)
    if is_lead():
        page.report(out, console)
    return out


def _scratch_folder() -> Path:
    """Where processes that are not the lead write their tables, which nobody reads."""
    folder = Path(tempfile.mkdtemp(prefix="imp_rg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _read_files(config: Config, tasks: dict[str, Task]) -> dict[str, Body]:
    """What the files among the inits hold: bodies, which have the same shape in every task."""
    files = {cell.init for cell in config.cells} - {SCRATCH, *config.sources}
    task = tasks[config.tasks[0]]
    return {init: read_body(Path(init), task) for init in sorted(files)}


def _say_what_is_left_out(config: Config, console: Console) -> None:
    planned = {(cell.task, cell.init) for cell in config.cells}
    own = [task for task in config.tasks if len(config.inits) > sum(t == task for t, _ in planned)]
    if own:
        said = ", ".join(own)
        console.print(f"left out: supervised pre-training on the task itself, of {said}", **AS_IS)


def _print_estimate(config: Config, tasks: dict[str, Task], out: Path, console: Console) -> None:
    """Says how long all unfinished cells and pre-trainings will take."""
    waiting = [
        c for c in config.cells if config.fresh or not lead_says(has_finished(out / c.folder))
    ]
    if not waiting:
        return
    pixels = sum(vision_assemble.num_pixels(config, cell, tasks[cell.task]) for cell in waiting)
    pixels += sources.num_pixels(config, waiting, tasks, out)
    # Time is taken as proportional to the pixels that networks are trained on.
    seconds = pixels * seconds_per_pixel(config, waiting[0], tasks[waiting[0].task])
    console.print(
        f"{len(waiting)} of {len(config.cells)} cells to run, levels 0 to {config.levels}: about "
        f"{duration_text(seconds)} at the speed of the first steps",
        **AS_IS,
    )


def _pretrain(config: Config, init: str, out: Path, console: Console) -> Path:
    """Pre-trains, or goes on with it; returns the file of weights."""
    source = config.sources[init]
    console.print(f"pre-training: {source.method} on {source.dataset}", **AS_IS)
    return pretrain.run(sources.pretrain_settings(config, init, out)) / WEIGHTS


def _run_cell(
    config: Config, cell: Cell, task: Task, body: Body | None, out: Path, console: Console
) -> None:
    """Runs or continues one cell in a run folder of its own."""
    began = time.monotonic()
    setup = prepare(config, task, cell, body, console)
    train = train_config(config, task.images, cell.mode)
    level_config = config.level_config(cell, train)
    console.print(headline(level_config, setup), **AS_IS)
    settings = resolved_settings(config, cell, train, setup)
    folder = RunFolder(out / cell.folder, settings, fresh=config.fresh)
    if imp_run.is_finished(folder):
        console.print("already finished; reporting again")
    else:
        command = shlex.join(["python", "-m", COMMAND, *sys.argv[1:]])
        imp_run.run_levels(level_config, setup, folder, console, command=command, began=began)
    if task.snapshots is not None:
        task.snapshots.clear()
    if is_lead():
        imp_run.report(folder, console)


def _list_cells(config: Config, tasks: dict[str, Task], out: Path) -> None:
    """Cells of earlier commands come first in the list of those that lie in a folder."""
    path = out / "config.json"
    known = read_json(path)["cells"] if path.exists() else []
    listed = [
        cell._asdict() | {"folder": cell.folder, "num_classes": tasks[cell.task].images.num_classes}
        for cell in config.cells
    ]
    folders = {entry["folder"] for entry in known}
    cells = known + [entry for entry in listed if entry["folder"] not in folders]
    write_json(path, {"experiment": "vision", "cells": cells})


def resolved_settings(
    config: Config, cell: Cell, train: TrainConfig, setup: Setup
) -> dict[str, Any]:
    """Every setting that makes a cell what it is, flat and in JSON types.

    Left out: where it and its data lie, how it is started, which files it keeps, and other cells.
    """
    flat = dataclasses.asdict(config) | dataclasses.asdict(train)
    for name in OMITTED:
        del flat[name]
    return flat | {
        "dataset": cell.task,
        "holdout": setup.about["num_val"],
        "init": cell.init,
        "mode": cell.mode,
        "device": jax.default_backend(),
        "driver": setup.execution.driver,
        "replicates": setup.execution.strategy,
        "block_names": list(setup.blocks.names),
        "num_listed": setup.blocks.num_listed,
        "num_prunable": sum(setup.blocks.sizes),
        **setup.about,
    }


def _default_folder(config: Config) -> Path:
    """``runs/vision_flow/MODEL-HASH``: other settings, other folder; cells share one."""
    flat = dataclasses.asdict(config)
    for name in OMITTED:
        del flat[name]
    return Path("runs") / "vision_flow" / f"{config.model}-{config_hash(flat)}"


if __name__ == "__main__":
    cli.main(run, PRESETS, prog=f"python -m {COMMAND}")
