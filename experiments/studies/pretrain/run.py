"""Pre-training epoch by epoch, resumable, then levels of pruning on the same task.

In: a config. Out: weights, metrics.csv, checkpoints, and the run folder of the levels.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.shell.cli import stop_if_asked
from experiments.shell.progress import Progress
from experiments.shell.settings import identity
from experiments.shell.study import Study
from experiments.studies.pretrain.assemble import (
    WEIGHTS,
    Pretraining,
    about_data,
    make_epoch_fn,
    prepare,
    prepare_levels,
    save_weights,
)
from experiments.studies.pretrain.config import Config
from experiments.trunk import assemble as trunk
from experiments.trunk.assemble import headline, summarise_images
from experiments.trunk.run import run_or_report
from imp_rg.config import require
from imp_rg.imp.replicates import stack
from imp_rg.pytree import from_flat, ones_masks, to_flat
from imp_rg.runs.checkpoints import Checkpoints
from imp_rg.runs.files import write_csv
from imp_rg.runs.folder import RunFolder, has_finished
from imp_rg.types import Masks, Variables

LEVELS = "imp"
"""Run folder of the levels, below the output."""


def run(config: Config, study: Study) -> Path:
    """Runs or continues pre-training and levels; returns the folder of the results."""
    prepared = prepare(config)
    settings = resolved_settings(prepared)
    dataset = Path(config.dataset.removeprefix("npz:")).stem
    stem = (config.method, dataset, config.model)
    out = config.out or study.default_folder(*stem, settings=settings)
    weights = config.init_from
    if weights is None:
        weights = out / WEIGHTS
        folder = RunFolder(out, settings, fresh=config.fresh)
        if has_finished(out) and weights.exists():
            study.say(f"already trained: {weights}")
        else:
            train(prepared, folder, study)
    if config.levels:
        _prune(prepared, weights, out / LEVELS, study)
    return out


def resolved_settings(prepared: Pretraining) -> dict[str, Any]:
    """Every setting that makes the weights what they are, flat and in JSON types."""
    about = about_data(prepared) | {"metric": f"test {prepared.method.metric} (%)"}
    found = {"device": jax.default_backend(), "driver": prepared.execution.driver}
    return {"experiment": "pretrain"} | identity(prepared.config) | found | about


class _State(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      variables: At the end of the last epoch.
      record: Loss, metric (NaN where none was taken) and seconds, each [epoch].
    """

    variables: Variables
    record: dict[str, np.ndarray]


def train(prepared: Pretraining, folder: RunFolder, study: Study) -> None:
    """Trains the epochs that are missing and writes the weights.

    Args:
      prepared: What is trained, and how.
      folder: Where it lies.
      study: The command at work.

    Raises:
      ValueError: If a loss is not finite; saved epochs are kept.
      KeyboardInterrupt: After Ctrl-C.
    """
    config, checkpoints = prepared.config, Checkpoints(folder.checkpoints)
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    done, state = _restore(prepared, checkpoints, study) or (0, _start(prepared, init_key))
    variables, record = state
    study.say(_headline(prepared, variables))
    progress = Progress(study.console, total=config.epochs * prepared.epoch_steps)
    progress.skip(done * prepared.epoch_steps)
    run_epoch = _make_run_epoch(prepared, ones_masks(variables.params), progress)
    with progress:
        for epoch in range(done, config.epochs):
            began = time.monotonic()
            variables, record["loss"][epoch] = run_epoch(run_key, epoch, variables)
            is_saved = (epoch + 1) % config.save_every == 0 or epoch + 1 == config.epochs
            if is_saved:
                measured = prepared.method.measure(stack([variables]), prepared.test_data)
                record["metric"][epoch] = measured[0]
            record["seconds"][epoch] = time.monotonic() - began
            if is_saved:
                checkpoints.save(epoch + 1, to_flat(_State(variables, record)))
                _write_table(folder, record, epoch + 1)
            steps = (epoch + 1) * prepared.epoch_steps
            progress.show(_epoch_text(prepared, epoch, record), done=steps, force=True)
    checkpoints.close()
    save_weights(prepared, variables, folder.path)
    study.describe(folder, seconds=float(record["seconds"].sum()))
    study.say(f"weights: {folder.path / WEIGHTS}")


def _start(prepared: Pretraining, key: Any) -> _State:
    return _State(jax.jit(prepared.init)(key), _blank_record(prepared.config.epochs))


def _blank_record(epochs: int) -> dict[str, np.ndarray]:
    measured = {name: np.full(epochs, np.nan) for name in ("loss", "metric")}
    return measured | {"seconds": np.zeros(epochs)}


def _restore(
    prepared: Pretraining, checkpoints: Checkpoints, study: Study
) -> tuple[int, _State] | None:
    """The newest sound checkpoint; says what it is and what was wrong with newer ones."""
    restored = checkpoints.restore()
    for problem in checkpoints.problems:
        study.say(f"warning: {problem}; going back to the one before")
    if restored is None:
        return None
    done, flat = restored
    study.say(f"continuing after epoch {done}")
    drawn = jax.eval_shape(prepared.init, jax.random.key(0))
    state: _State = from_flat(flat, _State(drawn, _blank_record(1)))
    variables = jax.tree.map(jnp.asarray, state.variables)
    return done, _State(variables, jax.tree.map(np.array, state.record))


def _make_run_epoch(prepared: Pretraining, masks: Masks, progress: Progress):
    """Builds `run_epoch(key, epoch, variables) -> (variables, loss)`, the mean of the epoch."""
    config, train_fn = prepared.config, make_epoch_fn(prepared)
    rate = config.train_config(epoch_steps=prepared.epoch_steps).learning_rate
    is_dispatched = prepared.execution.driver == "dispatch"
    steps = prepared.epoch_steps

    def run_epoch(key, epoch, variables):
        def on_step(step, loss):
            if step == steps:  # the epoch has a line of its own
                return stop_if_asked()
            text = f"epoch {epoch + 1}/{config.epochs} · step {step}/{steps} · loss {loss:.3f}"
            progress.show(text, done=epoch * steps + step)

        stop_if_asked()
        key = jax.random.fold_in(key, epoch)
        options: Any = {"on_progress": on_step} if is_dispatched else {}
        variables, info = train_fn(
            key, variables, masks, prepared.train_data, start=0, stop=steps, **options
        )
        rule = f"must be lower, the loss of epoch {epoch + 1} is not finite"
        require(bool(info.is_finite), "learning_rate", rule, rate)
        return variables, float(jnp.mean(info.loss))

    return run_epoch


def _write_table(folder: RunFolder, record: dict[str, np.ndarray], done: int) -> None:
    columns = {name: record[name][:done] for name in ("loss", "metric")}
    table = pd.DataFrame({"epoch": np.arange(1, done + 1)} | columns)
    write_csv(folder.table("metrics"), table)


def _headline(prepared: Pretraining, variables: Variables) -> str:
    """The first line a user sees: method, data, network."""
    config = prepared.config
    weights = sum(leaf.size for leaf in jax.tree.leaves(variables.params))
    return (
        f"{config.method} · {summarise_images(config.dataset, prepared.images)} · "
        f"{config.model}: {weights:,} weights · {config.epochs} epochs of "
        f"{prepared.epoch_steps} steps · {prepared.execution.driver} · compiling"
    )


def _epoch_text(prepared: Pretraining, epoch: int, record: dict[str, np.ndarray]) -> str:
    """Loss and metric of an epoch."""
    percent, loss = record["metric"][epoch], record["loss"][epoch]
    measured = "" if np.isnan(percent) else f" · {prepared.method.metric} {percent:.1f} %"
    return f"epoch {epoch + 1}/{prepared.config.epochs} · loss {loss:.3f}{measured}"


def _prune(prepared: Pretraining, weights: Path, out: Path, study: Study) -> None:
    """Prunes the weights in a run folder of its own."""
    began, config = time.monotonic(), prepared.config
    setup = prepare_levels(prepared, weights, study.console)
    level_config = config.level_config(epoch_steps=prepared.epoch_steps)
    study.say(headline(level_config, setup))
    folder = RunFolder(out, trunk.resolved_settings(level_config, setup), fresh=config.fresh)
    run_or_report(level_config, setup, folder, study, began=began)
