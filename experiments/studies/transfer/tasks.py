"""Tasks of a transfer experiment: prepared, checked against each other, and run as sources.

In: a config. Out: a `Task` for each name, then a run folder with tickets for each.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.shell.study import AS_IS
from experiments.studies.language import assemble as language_assemble
from experiments.studies.transfer.config import TEXT, Config, task_folder
from experiments.trunk import assemble, run
from experiments.trunk.assemble import Setup
from experiments.trunk.config import Config as RunConfig
from imp_rg.imp.levels import Scheme
from imp_rg.pytree import ones_masks
from imp_rg.runs.folder import RunFolder
from imp_rg.tickets.transfer import check_fit
from imp_rg.types import Keys, Variables


class Task(NamedTuple):
    """A source and target.

    Attributes:
      name: As given.
      folder: Of its run.
      config: What its run reads of the settings.
      settings: What makes its run what it is.
      setup: What the run needs.
      estimate: Seconds that the networks of all seeds take to train once, by trying.
      draw: Fresh variables from a key for each seed.
      trainer: F and the metric for cells. Tasks of one program share it, and `draw`: each is
        compiled once.
    """

    name: str
    folder: Path
    config: RunConfig
    settings: dict[str, Any]
    setup: Setup
    estimate: Callable[[], float]
    draw: Callable[[Keys], Variables]
    trainer: Scheme


def prepare_task(name: str, config: Config, folder: Path, console: Console) -> Task:
    """Everything that the settings of one task determine; all that trains goes through its setup.

    Raises:
      ValueError: In one line, if a setting is unfit.
    """
    prepare = _prepare_text if name.startswith(TEXT) else _prepare_images
    return prepare(name, config, folder / "sources" / task_folder(name), console)


def _prepare_images(name: str, config: Config, folder: Path, console: Console) -> Task:
    run_config = config.run_config(name)
    made = assemble.prepare(run_config, console)
    return Task(
        name=name,
        folder=folder,
        config=run_config,
        settings=assemble.resolved_settings(run_config, made),
        setup=made,
        estimate=lambda: _time_images(run_config, made),
        draw=jax.jit(jax.vmap(made.init)),
        trainer=made.scheme,
    )


def _prepare_text(name: str, config: Config, folder: Path, console: Console) -> Task:
    text_config = config.text_config(name)
    (text,) = language_assemble.load_texts(text_config)
    made = language_assemble.prepare(text_config, text, console)

    def estimate() -> float:
        return language_assemble.estimate_seconds(text_config, [text], made) / (config.levels + 1)

    return Task(
        name=name,
        folder=folder,
        config=text_config.level_config(text.task, num_steps=made.about["level_steps"]),
        settings=language_assemble.resolved_settings(text_config, text, made),
        setup=made,
        estimate=estimate,
        draw=jax.jit(jax.vmap(made.init)),
        trainer=made.scheme,
    )


def _time_images(config: RunConfig, made: Setup) -> float:
    """From a few steps; small networks, whose seeds are one program, are trained once."""
    if made.execution.strategy != "vmap":
        return assemble.estimate_seconds(config, made) / (config.levels + 1)
    seeds = jnp.arange(config.seeds)
    variables = jax.jit(jax.vmap(made.init))(jax.vmap(jax.random.key)(seeds))
    masks = ones_masks(variables.params)

    def time_once() -> float:
        keys, began = jax.vmap(jax.random.key)(seeds), time.monotonic()
        jax.block_until_ready(made.scheme.retrain(keys, variables, masks, made.train_data))
        return time.monotonic() - began

    time_once()  # compiles
    return time_once()


def prepare_tasks(config: Config, folder: Path, console: Console) -> list[Task]:
    """Prepares all tasks; every one of them can be trained on every other one's tickets.

    Raises:
      ValueError: In one line, if a task is unknown or tickets of one do not fit another.
    """
    of_program: dict[tuple, Task] = {}
    tasks = []
    for name in config.task_names:
        task = prepare_task(name, config, folder, console)
        first = of_program.setdefault(task.setup.program or (name,), task)
        tasks.append(task._replace(draw=first.draw, trainer=first.trainer))
    check_fit(tasks[0].setup.shapes, tasks[0].setup.shapes, config.redrawn)  # is anything redrawn?
    for task in tasks[1:]:
        _check_fit(tasks[0], task, config)
    return tasks


def _check_fit(first: Task, task: Task, config: Config) -> None:
    """Says what to do if images of another size are the reason."""
    try:
        check_fit(first.setup.shapes, task.setup.shapes, config.redrawn)
    except ValueError as error:
        shapes = [getattr(t.setup.train_data.x, "shape", ())[1:] for t in (first, task)]
        reason = f"{first.name} has inputs of shape {shapes[0]}, {task.name} {shapes[1]}"
        can_resize = shapes[0] != shapes[1] and [s[-1:] for s in shapes] == [shapes[0][-1:]] * 2
        hint = "; --resize N brings all images to one size" if can_resize else ""
        raise ValueError(f"tasks: must fit one network; {reason}: {error}{hint}") from None


def run_sources(config: Config, tasks: list[Task], console: Console, *, command: str) -> None:
    """Finds the tickets of every task that has none, level by level; finished runs are kept.

    No page is written: the command of experiments.imp_flow does it for any of these folders.
    """
    for i, task in enumerate(tasks, 1):
        began = time.monotonic()
        folder = RunFolder(task.folder, task.settings, fresh=config.fresh)
        if run.is_finished(folder):
            continue
        console.print(f"source {i} of {len(tasks)}: {task.name}", **AS_IS)
        run.run_levels(task.config, task.setup, folder, console, command=command, began=began)
        seconds = time.monotonic() - began
        console.print(f"source {i} of {len(tasks)}: {seconds:.0f} s", **AS_IS)
