"""The epochs of a pre-training: trained, measured, saved, resumed.

In: a `Pretraining` and a run folder. Out: metrics.csv, checkpoints, and at the end the weights.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.shell import cli
from experiments.shell.progress import SECONDS_BETWEEN_LINES
from experiments.shell.study import AS_IS, duration_text
from experiments.studies.pretrain.assemble import WEIGHTS, Pretraining, make_epoch_fn, save_weights
from experiments.trunk.assemble import summarise_images
from imp_rg.config import require
from imp_rg.imp.replicates import stack
from imp_rg.pytree import from_flat, ones_masks, to_flat
from imp_rg.runs.checkpoints import Checkpoints
from imp_rg.runs.files import write_csv, write_json
from imp_rg.runs.folder import RunFolder, describe_environment
from imp_rg.types import Masks, Variables


class _State(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      variables: At the end of the last epoch.
      record: Loss, metric (NaN where none was taken) and seconds, each [epoch].
    """

    variables: Variables
    record: dict[str, np.ndarray]


def train(prepared: Pretraining, folder: RunFolder, console: Console, *, command: str) -> None:
    """Trains the epochs that are missing and writes the weights.

    Args:
      prepared: What is trained, and how.
      folder: Where it lies.
      console: For progress.
      command: How to repeat it.

    Raises:
      ValueError: If a loss is not finite; saved epochs are kept.
      KeyboardInterrupt: After Ctrl-C.
    """
    config, checkpoints = prepared.config, Checkpoints(folder.checkpoints)
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    done, state = _restore(prepared, checkpoints, console) or (0, _start(prepared, init_key))
    variables, record = state
    console.print(_headline(prepared, variables), **AS_IS)
    progress = _Progress(prepared, done, console)
    run_epoch = _make_run_epoch(prepared, ones_masks(variables.params), progress)
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
        progress.end_epoch(epoch, record)
    checkpoints.close()
    save_weights(prepared, variables, folder.path)
    environment = describe_environment(command=command, seconds=float(record["seconds"].sum()))
    write_json(folder.environment, environment | {"finished": True})
    console.print(f"weights: {folder.path / WEIGHTS}", **AS_IS)


def _start(prepared: Pretraining, key: Any) -> _State:
    return _State(jax.jit(prepared.init)(key), _blank_record(prepared.config.epochs))


def _blank_record(epochs: int) -> dict[str, np.ndarray]:
    measured = {name: np.full(epochs, np.nan) for name in ("loss", "metric")}
    return measured | {"seconds": np.zeros(epochs)}


def _restore(
    prepared: Pretraining, checkpoints: Checkpoints, console: Console
) -> tuple[int, _State] | None:
    """The newest sound checkpoint; says what it is and what was wrong with newer ones."""
    restored = checkpoints.restore()
    for problem in checkpoints.problems:
        console.print(f"warning: {problem}; going back to the one before", **AS_IS)
    if restored is None:
        return None
    done, flat = restored
    console.print(f"continuing after epoch {done}", highlight=False)
    drawn = jax.eval_shape(prepared.init, jax.random.key(0))
    state: _State = from_flat(flat, _State(drawn, _blank_record(1)))
    variables = jax.tree.map(jnp.asarray, state.variables)
    return done, _State(variables, jax.tree.map(np.array, state.record))


def _make_run_epoch(prepared: Pretraining, masks: Masks, progress: "_Progress"):
    """Builds `run_epoch(key, epoch, variables) -> (variables, loss)`, the mean of the epoch."""
    config, train_fn = prepared.config, make_epoch_fn(prepared)
    rate = config.train_config(epoch_steps=prepared.epoch_steps).learning_rate
    is_dispatched = prepared.execution.driver == "dispatch"
    options: Any = {"on_progress": progress.on_step} if is_dispatched else {}

    def run_epoch(key, epoch, variables):
        if cli.interrupted.is_set():
            raise KeyboardInterrupt
        key, steps = jax.random.fold_in(key, epoch), prepared.epoch_steps
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


class _Progress:
    """Lines in between: how much of the training is done, loss, metric, time left."""

    def __init__(self, prepared: Pretraining, done: int, console: Console):
        self._console, self._metric = console, prepared.method.metric
        self._epochs, self._epoch_steps = prepared.config.epochs, prepared.epoch_steps
        self._epoch, self._begun, self._last_line = done, None, time.monotonic()

    def on_step(self, step: int, loss: float) -> None:
        """Reports a step of the running epoch; raises `KeyboardInterrupt` after Ctrl-C."""
        if cli.interrupted.is_set():
            raise KeyboardInterrupt
        done, now = self._epoch * self._epoch_steps + step, time.monotonic()
        if self._begun is None:  # what came before compiled
            self._begun = now, done
        is_due = now - self._last_line > SECONDS_BETWEEN_LINES
        if is_due and step < self._epoch_steps:
            text = f"epoch {self._epoch + 1}/{self._epochs} · step {step}/{self._epoch_steps}"
            self._say(f"{text} · loss {loss:.3f}", done)

    def end_epoch(self, epoch: int, record: dict[str, np.ndarray]) -> None:
        """Reports an epoch."""
        self._epoch = epoch + 1
        done = self._epoch * self._epoch_steps
        if self._begun is None:
            self._begun = time.monotonic(), done
        percent = record["metric"][epoch]
        measured = "" if np.isnan(percent) else f" · {self._metric} {percent:.1f} %"
        loss = record["loss"][epoch]
        self._say(f"epoch {self._epoch}/{self._epochs} · loss {loss:.3f}{measured}", done)

    def _say(self, text: str, done: int) -> None:
        now = self._last_line = time.monotonic()
        begun, first = self._begun or (now, done)
        total = self._epochs * self._epoch_steps
        left = ""
        if first < done < total:
            seconds = (now - begun) / (done - first) * (total - done)
            left = f" · about {duration_text(seconds)} left"
        self._console.print(text + left, highlight=False)
