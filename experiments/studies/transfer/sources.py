"""Sources of a transfer experiment: tasks prepared, checked against each other, and run.

In: a config. Out: a `Source` for each task, then a run folder with tickets for each.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.shell.study import Study, seconds_of
from experiments.studies.language import assemble as language
from experiments.studies.transfer.config import TEXT, Config, task_folder
from experiments.trunk import assemble as images
from experiments.trunk import run as trunk
from experiments.trunk.assemble import Setup
from experiments.trunk.config import Config as RunConfig
from imp_rg.imp.levels import Scheme
from imp_rg.pytree import ones_masks
from imp_rg.runs.folder import RunFolder
from imp_rg.tickets.transfer import check_fit
from imp_rg.types import Keys, Variables


class Source(NamedTuple):
    """A task whose tickets are moved, and to which those of others are.

    Attributes:
      name: Of the task, as given.
      folder: Of its run.
      config: What its run reads of the settings.
      settings: What makes its run what it is.
      setup: What the run needs.
      estimate: Seconds that the networks of all seeds take to train once, by trying.
      sample: Fresh variables from a key for each seed.
      trainer: F and the metric of trainings. Tasks of one program share it, and `sample`: each is
        compiled once.
    """

    name: str
    folder: Path
    config: RunConfig
    settings: dict[str, Any]
    setup: Setup
    estimate: Callable[[], float]
    sample: Callable[[Keys], Variables]
    trainer: Scheme


def prepare_sources(config: Config, folder: Path) -> list[Source]:
    """Prepares all tasks; every one of them can be trained on every other one's tickets.

    Raises:
      ValueError: In one line, if a setting is unfit, a task is unknown or tickets of one do not fit
        another.
    """
    of_program: dict[tuple, Source] = {}
    sources = []
    for name in config.task_names:
        prepare = _prepare_text if name.startswith(TEXT) else _prepare_images
        source = prepare(name, config, folder / "sources" / task_folder(name))
        first = of_program.setdefault(source.setup.program or (name,), source)
        sources.append(source._replace(sample=first.sample, trainer=first.trainer))
    shapes = sources[0].setup.shapes
    check_fit(shapes, shapes, config.redrawn)  # is anything redrawn?
    for source in sources[1:]:
        _check_fit(sources[0], source, config)
    return sources


def _prepare_images(name: str, config: Config, folder: Path) -> Source:
    run_config = config.run_config(name)
    setup = images.prepare(run_config, Console(quiet=True))
    settings = images.resolved_settings(run_config, setup)
    return _make_source(
        name, folder, run_config, settings, setup, lambda: _time_images(run_config, setup)
    )


def _prepare_text(name: str, config: Config, folder: Path) -> Source:
    text_config = config.text_config(name)
    (text,) = language.load_texts(text_config)
    setup = language.prepare(text_config, text, Console(quiet=True))
    run_config = text_config.level_config(text.task, num_steps=setup.about["level_steps"])
    settings = language.resolved_settings(text_config, text, setup)

    def estimate() -> float:
        return language.estimate_seconds(text_config, [text], setup) / (config.levels + 1)

    return _make_source(name, folder, run_config, settings, setup, estimate)


def _make_source(name, folder, config, settings, setup: Setup, estimate) -> Source:
    sample = jax.jit(jax.vmap(setup.init))
    return Source(name, folder, config, settings, setup, estimate, sample, setup.scheme)


def _time_images(config: RunConfig, setup: Setup) -> float:
    """From a few steps; small networks, whose seeds are one program, are trained once."""
    if setup.execution.strategy != "vmap":
        return images.estimate_seconds(config, setup) / (config.levels + 1)
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seeds))
    variables = jax.jit(jax.vmap(setup.init))(jax.random.clone(keys))
    masks = ones_masks(variables.params)

    def train_once() -> None:
        found = setup.scheme.retrain(jax.random.clone(keys), variables, masks, setup.train_data)
        jax.block_until_ready(found)

    return seconds_of(train_once)


def _check_fit(first: Source, source: Source, config: Config) -> None:
    """Says what to do if images of another size are the reason."""
    try:
        check_fit(first.setup.shapes, source.setup.shapes, config.redrawn)
    except ValueError as error:
        shapes = [getattr(one.setup.train_data.x, "shape", ())[1:] for one in (first, source)]
        reason = f"{first.name} has inputs of shape {shapes[0]}, {source.name} {shapes[1]}"
        can_resize = shapes[0] != shapes[1] and [s[-1:] for s in shapes] == [shapes[0][-1:]] * 2
        hint = "; --resize N brings all images to one size" if can_resize else ""
        raise ValueError(f"tasks: must fit one network; {reason}: {error}{hint}") from None


def run_sources(sources: Sequence[Source], study: Study, *, fresh: bool) -> None:
    """Finds the tickets of every task that has none, level by level; finished runs are kept.

    No page is written: the command of experiments.imp_flow does it for any of these folders.
    """
    for i, source in enumerate(sources, 1):
        began = time.monotonic()
        folder = RunFolder(source.folder, source.settings, fresh=fresh)
        if trunk.is_finished(folder):
            continue
        study.say(f"source {i} of {len(sources)}: {source.name}")
        trunk.run_levels(source.config, source.setup, folder, study, began=began)
        study.say(f"source {i} of {len(sources)}: {time.monotonic() - began:.0f} s")
