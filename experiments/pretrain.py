"""What do networks start from? Pre-training by labels, SimCLR or MoCo v2, and IMP on that task.

Trains one network from scratch and writes its weights for others to start from; with --levels it
is then pruned on the task of its pre-training, as the study of pre-trained tickets did: weights
are pruned before they are trained any further, each level is short and at a small constant rate,
and every level starts from the pre-trained weights.

    python -m experiments.pretrain --method simclr                       # parts of CIFAR-10
    python -m experiments.pretrain --preset smoke --method moco --levels 4
    python -m experiments.pretrain --preset paper --method moco --dataset folder:PATH --device gpu
    python -m experiments.pretrain ... --levels 18 --init-from FILE     # prunes published weights

Results lie in --out: weights.safetensors (the network, by leaf path), projector.safetensors,
metrics.csv (epoch, loss, metric), and with --levels an ordinary run folder, imp/. Saved epochs and
levels are kept: the same command goes on from there.

The preset smoke takes a minute of one core: supervised, digits are told apart to 94 % after 3
epochs.

A set too large for memory, such as ImageNet, is streamed: --dataset folder:PATH, where both views
of a picture are cut at its full size while it is read, and their colours changed on the device.

Where this differs from the study: SGD stands for LARS, as the study's text has it, against its
code; MoCo's batches are not shuffled between devices; held-out views of a streamed set are cut
from the centres of its pictures. As in the study, levels of the contrastive methods keep optimizer
and queue, those of supervised training begin with a fresh optimizer. The projection head of a
published file is not read but drawn.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5.1; recipe of Chen et al.,
arXiv:2012.06908.
"""

import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import AS_IS
from experiments.studies.pretrain.assemble import (
    WEIGHTS,
    Pretraining,
    about_data,
    prepare,
    prepare_levels,
)
from experiments.studies.pretrain.config import PRESETS, Config
from experiments.studies.pretrain.loop import train
from experiments.trunk import assemble
from experiments.trunk import run as imp_run
from imp_rg.runs.folder import RunFolder, config_hash, has_finished

OF_THE_LEVELS = ("levels", "init_from", "level_epochs", "level_learning_rate", "seeds", "blocks")
OF_THE_LEVELS += ("prune", "ci_level", "save_levels", "no_tickets")
NOT_OF_THE_WEIGHTS = (*OF_THE_LEVELS, "preset", "out", "fresh", "data_dir", "save_every")
"""Settings that do not change what is trained."""

LEVELS = "imp"
"""Run folder of the levels, below the output."""

COMMAND = "experiments.pretrain"


def run(config: Config) -> Path:
    """Runs or continues pre-training and levels; returns the folder of the results."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    use_device(config.level_config(epoch_steps=1))
    prepared = prepare(config)
    settings = resolved_settings(prepared)
    out = config.out or _default_folder(settings)
    weights = config.init_from
    if weights is None:
        weights = out / WEIGHTS
        folder = RunFolder(out, settings, fresh=config.fresh)
        if has_finished(out) and weights.exists():
            console.print(f"already trained: {weights}", **AS_IS)
        else:
            train(prepared, folder, console, command=_command())
    if config.levels:
        _run_levels(prepared, weights, out / LEVELS, console)
    return out


def resolved_settings(prepared: Pretraining) -> dict[str, Any]:
    """Every setting that makes the weights what they are, flat and in JSON types."""
    flat = dataclasses.asdict(prepared.config)
    for name in NOT_OF_THE_WEIGHTS:
        del flat[name]
    about = about_data(prepared) | {"metric": f"test {prepared.method.metric} (%)"}
    found = {"device": jax.default_backend(), "driver": prepared.execution.driver}
    return {"experiment": "pretrain"} | flat | found | about


def _default_folder(settings: dict[str, Any]) -> Path:
    """``runs/pretrain/METHOD-DATASET-MODEL-HASH``: other settings, other folder."""
    dataset = Path(settings["dataset"].removeprefix("npz:")).stem
    name = f"{settings['method']}-{dataset}-{settings['model']}-{config_hash(settings)}"
    return Path("runs") / "pretrain" / name


def _command() -> str:
    return shlex.join(["python", "-m", COMMAND, *sys.argv[1:]])


def _run_levels(prepared: Pretraining, weights: Path, out: Path, console: Console) -> None:
    """Prunes the weights in a run folder of its own."""
    began, config = time.monotonic(), prepared.config
    levels = prepare_levels(prepared, weights, console)
    level_config = config.level_config(epoch_steps=prepared.epoch_steps)
    console.print(assemble.headline(level_config, levels), **AS_IS)
    settings = assemble.resolved_settings(level_config, levels)
    folder = RunFolder(out, settings, fresh=config.fresh)
    if imp_run.is_finished(folder):
        console.print("already finished; reporting again")
    else:
        imp_run.run_levels(level_config, levels, folder, console, command=_command(), began=began)
    imp_run.report(folder, console)


if __name__ == "__main__":
    cli.main(run, PRESETS, prog=f"python -m {COMMAND}")
