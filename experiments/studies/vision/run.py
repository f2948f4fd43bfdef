"""The runs of a vision experiment: pre-trainings, one run folder per task and init, in one folder.

In: a config. Out: the folder; finished levels and pre-trainings in it are kept.
"""

import atexit
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.shell.settings import identity
from experiments.shell.study import Study
from experiments.studies.pretrain import config as pretrain_config
from experiments.studies.pretrain.assemble import WEIGHTS
from experiments.studies.pretrain.run import run as pretrain
from experiments.studies.vision.assemble import (
    Body,
    num_pixels,
    prepare,
    read_body,
    seconds_per_pixel,
)
from experiments.studies.vision.config import SCRATCH, Config, RunSpec, slug
from experiments.studies.vision.tasks import (
    ImageTask,
    load_images,
    load_task,
    train_config,
    with_execution,
)
from experiments.trunk.assemble import TIMED_STEPS, Setup, determined, headline, make_trial
from experiments.trunk.run import run_or_report
from imp_rg.config import TrainConfig
from imp_rg.data.image_folder import PREFIX, load_folder
from imp_rg.imp.execution import Execution, admissible_executions, measure_execution
from imp_rg.imp.mesh import is_lead, lead_says
from imp_rg.runs.files import read_json, write_json
from imp_rg.runs.folder import RunFolder, has_finished

VIEWS = {"supervised": 1, "simclr": 2, "moco": 2}
"""Views of an image that a step of each method of pre-training trains on."""

EXECUTION = "execution.json"
"""How seeds run, where it was measured: a continued experiment goes on as it began."""


def run_all(config: Config, study: Study) -> Path:
    """Pre-trains and runs what is missing; returns the folder of the runs."""
    # Before anything is written: a wrong setting leaves no folder behind.
    default = study.default_folder(config.model, settings=identity(config))
    out = (config.out or default) if is_lead() else _scratch_folder()
    tasks = {name: load_task(config, name, out) for name in config.tasks}
    files = {spec.init for spec in config.runs} - {SCRATCH, *config.sources}
    bodies = {init: read_body(Path(init), tasks[config.tasks[0]]) for init in sorted(files)}
    if config.replicates == "measure":
        config = resolve_execution(config, next(iter(tasks.values())), out, study)
        tasks = {name: with_execution(config, task) for name, task in tasks.items()}
    _announce(config, tasks, out, study)
    for spec in config.runs:
        if spec.init in config.sources and spec.init not in bodies:
            source = config.sources[spec.init]
            study.say(f"pre-training: {source.method} on {source.dataset}")
            weights = pretrain(pretrain_settings(config, spec.init, out), study) / WEIGHTS
            bodies[spec.init] = read_body(weights, tasks[spec.task])
        _run(config, spec, tasks[spec.task], bodies.get(spec.init), out, study)
        _list_runs(config, tasks, out)
    return out


def _scratch_folder() -> Path:
    """Where processes that are not the lead write their tables, which nobody reads."""
    folder = Path(tempfile.mkdtemp(prefix="imp_rg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _announce(config: Config, tasks: Mapping[str, ImageTask], out: Path, study: Study) -> None:
    """Says what is left out, and how long all unfinished runs and pre-trainings will take."""
    planned = [spec.task for spec in config.runs]
    own = [task for task in config.tasks if len(config.inits) > planned.count(task)]
    if own:
        study.say(f"left out: supervised pre-training on the task itself, of {', '.join(own)}")
    waiting = [
        s for s in config.runs if config.fresh or not lead_says(has_finished(out / s.folder))
    ]
    if not waiting:
        return
    pixels = sum(num_pixels(config, spec, tasks[spec.task]) for spec in waiting)
    pixels += pretraining_pixels(config, waiting, tasks, out)
    # Time is taken as proportional to the pixels that networks are trained on.
    seconds = pixels * seconds_per_pixel(config, waiting[0], tasks[waiting[0].task])
    what = f"{len(waiting)} of {len(config.runs)} runs to do, levels 0 to {config.levels}"
    study.announce(seconds, what)


def _run(
    config: Config, spec: RunSpec, task: ImageTask, body: Body | None, out: Path, study: Study
) -> None:
    """Runs or continues one run in a folder of its own."""
    began = time.monotonic()
    setup = prepare(config, task, spec, body, study.console)
    train = train_config(config, task.images, spec.mode)
    level_config = config.level_config(spec, train)
    study.say(headline(level_config, setup))
    settings = resolved_settings(config, spec, train, setup)
    folder = RunFolder(out / spec.folder, settings, fresh=config.fresh)
    run_or_report(level_config, setup, folder, study, began=began)
    if task.snapshots is not None:
        task.snapshots.clear()


def _list_runs(config: Config, tasks: Mapping[str, ImageTask], out: Path) -> None:
    """Runs of earlier commands come first in the list of those that lie in a folder."""
    path = out / "config.json"
    known = read_json(path)["cells"] if path.exists() else []
    listed = [
        spec._asdict() | {"folder": spec.folder, "num_classes": tasks[spec.task].images.num_classes}
        for spec in config.runs
    ]
    folders = {entry["folder"] for entry in known}
    runs = known + [entry for entry in listed if entry["folder"] not in folders]
    write_json(path, {"experiment": "vision", "cells": runs})


def resolved_settings(
    config: Config, spec: RunSpec, train: TrainConfig, setup: Setup
) -> dict[str, Any]:
    """Every setting that makes a run what it is, flat and in JSON types.

    Digests say what data and weights are, wherever they lie.
    """
    own = {
        "dataset": spec.task,
        "holdout": setup.about["num_val"],
        "init": spec.init,
        "mode": spec.mode,
    }
    return identity(config) | identity(train) | own | determined(setup)


# Pre-trainings.


def source_folder(out: Path, init: str) -> Path:
    """Where the pre-training of an init lies below the output. House definition."""
    return out / "pretrain" / slug(init)


def pretrain_settings(config: Config, init: str, out: Path) -> pretrain_config.Config:
    """Settings of the pre-training of an init. House definition."""
    source = config.sources[init]
    return pretrain_config.Config(
        method=source.method,
        dataset=source.dataset,
        data_dir=config.data_dir,
        model=config.model,
        width=config.width,
        stem=config.stem,
        augment=config.augment,
        epochs=config.pretrain_epochs,
        batch_size=config.batch_size,
        device=config.device,
        dtype=config.dtype,
        deterministic=config.deterministic,
        out=source_folder(out, init),
        fresh=config.fresh,
    )


def pretraining_pixels(
    config: Config, specs: Sequence[RunSpec], tasks: Mapping[str, ImageTask], out: Path
) -> int:
    """Pixels that the pre-trainings are still to see, of all that these runs start from."""
    total = 0
    for init in {spec.init for spec in specs} & config.sources.keys():
        if not config.fresh and has_finished(source_folder(out, init)):
            continue
        method, dataset = config.sources[init]
        if dataset in tasks:
            images = tasks[dataset].images
        elif dataset.startswith(PREFIX):
            images = load_folder(dataset).outline()
        else:
            images = load_images(config, dataset)
        height, width = images.x_train.shape[1:3]
        total += config.pretrain_epochs * len(images.y_train) * height * width * VIEWS[method]
    return total


# --replicates measure.


def resolve_execution(config: Config, task: ImageTask, out: Path, study: Study) -> Config:
    """Puts what is fastest on these devices in the place of ``measure``. House definition."""
    known = out / EXECUTION
    if known.exists() and not config.fresh:
        found = read_json(known)
        return dataclasses.replace(config, driver=found["driver"], replicates=found["replicates"])
    timing = measure_execution(*_candidates(config, task))
    rows = [
        {"driver": execution.driver, "replicates": execution.strategy, "seconds": seconds}
        for execution, seconds in timing.seconds.items()
    ]
    said = [f"{row['driver']} and {row['replicates']} {row['seconds']:.3g} s"
            for row in sorted(rows, key=lambda row: row["seconds"])]  # fmt: skip
    study.say(f"replicates: {TIMED_STEPS} steps of all seeds take by {', '.join(said)}")
    best = {"driver": timing.best.driver, "replicates": timing.best.strategy}
    write_json(known, best | {"measured": rows})
    return dataclasses.replace(config, **best)


def _candidates(config: Config, task: ImageTask):
    """How to time an execution, and those worth timing."""
    spec = RunSpec(task.name, SCRATCH, config.mode)
    train = train_config(config, task.images, spec.mode)

    def make_call(execution: Execution):
        settings = dataclasses.replace(
            config, driver=execution.driver, replicates=execution.strategy
        )
        setup = prepare(settings, with_execution(settings, task), spec, None, Console(quiet=True))
        num_steps = min(TIMED_STEPS, train.num_steps)
        return make_trial(settings.level_config(spec, train), setup, num_steps=num_steps)

    candidates = admissible_executions(has_convolutions=True, mesh=task.execution.mesh)
    return make_call, [e for e in candidates if config.driver in ("auto", e.driver)]
