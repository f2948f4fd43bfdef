"""Which tickets can be moved between networks of different depth, and does sigma tell which?

Runs IMP on ResNets of several depths, compares their exponents block by block (the paper's Tables 4
to 6), moves their tickets to the other depths by copying or dropping whole residual blocks, and
asks whether the mismatch of sigma between source and target predicts what a moved ticket loses.

    python -m experiments.elastic                     # digits, ResNet-14, 20, 32 at half width
    python -m experiments.elastic --depths 14 20 32 44
    python -m experiments.elastic --map "20:32:0:0;1:1,3,4;2:2"
    python -m experiments.elastic --preset smoke      # a minute
    python -m experiments.elastic --preset cifar --device gpu
    python -m experiments.elastic --preset paper --device gpu

The default takes about 40 minutes on 2 CPU cores (estimated from its CPU time) and 2 GB. By the
default maps 15 of 22 tickets that count come within the margin of the target's own ticket. The
mismatch of sigma orders the losses of 13 ways between depths with a rank correlation of +0.11, the
ratio of depths alone with +0.30: too few to tell the two apart.

An estimate of the time is printed first. Every depth has a run folder of its own below the output,
and every training of a moved ticket is a row of cells.csv: the same command continues an unfinished
experiment, further depths, maps or densities add to a finished one.

Source: Chen et al., "The Elastic Lottery Ticket Hypothesis", arXiv:2103.16547; Redman, Chen, Wang,
Dogra, arXiv:2110.03210, Sec. 5.3 and Tables 4 to 6.
"""

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import imp_flow
from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import AS_IS, duration_text
from experiments.studies.elastic.cells import (
    Cell,
    levels_at,
    missing_cells,
    plan_cells,
    train_cells,
)
from experiments.studies.elastic.config import PRESETS, Config
from experiments.studies.elastic.page import report
from experiments.trunk.assemble import Setup, estimate_seconds, prepare
from experiments.trunk.config import Config as RunConfig
from imp_rg.runs.files import read_csv, write_json
from imp_rg.runs.folder import RunFolder, config_hash, describe_runs, has_finished


def run(config: Config) -> Path:
    """Runs what is missing, then reports; returns the folder of the results."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    settings = _settings(config)
    path = config.out or _default_folder(settings)
    run_configs = {depth: config.source_run(depth, path) for depth in config.depths}
    use_device(run_configs[config.depths[0]])
    # Before anything is written: a wrong setting leaves no folder behind.
    routes = config.routes()
    setups = {depth: prepare(own, Console(quiet=True)) for depth, own in run_configs.items()}
    levels = {depth: levels_at(config.densities, setups[depth], depth) for depth in config.depths}
    cells = plan_cells(routes, levels)
    folder = RunFolder(path, settings, fresh=config.fresh).path
    if config.fresh:
        (folder / "cells.csv").unlink(missing_ok=True)
    missing = missing_cells(cells, folder / "cells.csv")
    _print_estimate(config, run_configs, setups, cells, missing, console)
    runs = {}
    for depth, run_config in run_configs.items():
        console.print(f"ResNet-{depth}", **AS_IS)
        runs[depth] = imp_flow.run(run_config)
    seeds = run_configs[config.depths[0]].seed_list
    train_cells(cells, setups=setups, runs=runs, seeds=seeds, folder=folder, console=console)
    _describe(folder, runs)
    page = report(config, folder, runs, cells, console)
    console.print(f"report: {page}", **AS_IS)
    return folder


def _print_estimate(
    config: Config,
    runs: Mapping[int, RunConfig],
    setups: Mapping[int, Setup],
    cells: list[Cell],
    missing: list[Cell],
    console: Console,
) -> None:
    """Says how long the missing runs and cells will take, from a few steps of each depth."""
    left = [d for d, run in runs.items() if run.fresh or not (run.out and has_finished(run.out))]
    if not left and not missing:
        return
    console.print(
        f"{len(left)} of {len(runs)} networks and {len(missing)} of {len(cells)} cells to train; "
        "timing them",
        **AS_IS,
    )
    train = config.train
    num_steps = train.num_steps - train.first_step
    whole = train.rewind_step + (config.levels + 1) * num_steps
    of_run = {depth: estimate_seconds(run, setups[depth]) for depth, run in runs.items()}
    seconds = sum(of_run[depth] for depth in left)
    seconds += sum(of_run[cell.route.target_depth] * num_steps / whole for cell in missing)
    console.print(f"about {duration_text(seconds)} at the speed of the first steps", **AS_IS)


def _describe(folder: Path, runs: Mapping[int, Path]) -> None:
    """Versions, device and time of all runs and cells, in however many starts."""
    command = shlex.join(["python", "-m", "experiments.elastic", *sys.argv[1:]])
    environment = describe_runs(runs.values(), command=command)
    environment["seconds"] += round(float(read_csv(folder / "timing.csv")["seconds"].sum()), 1)
    write_json(folder / "environment.json", environment)


def _settings(config: Config) -> dict[str, Any]:
    """What all depths and cells share, flat and in JSON types; others can be added later."""
    flat = dataclasses.asdict(config)
    flat |= flat.pop("prune") | flat.pop("train")
    for name in ("out", "fresh", "preset", "depths", "densities", "map", "sigma_levels"):
        del flat[name]
    flat["data_dir"] = None if config.data_dir is None else str(config.data_dir.absolute())
    return flat | {"experiment": "elastic"}


def _default_folder(settings: dict[str, Any]) -> Path:
    name = f"{Path(settings['dataset']).stem}-{config_hash(settings)}"
    return Path("runs") / "elastic" / name


if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.elastic",
        when_stopped="finished levels and cells are saved, the same command goes on from there",
    )
