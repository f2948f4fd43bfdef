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
shares of kept weights. ResNet-14 takes hours; an estimate is printed first. Every finished
training is on disk: the same command continues an unfinished experiment, and with further tasks
trains only what is new.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5; Morcos et al., arXiv:1906.02773.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import Study, duration_text, seconds_so_far
from experiments.studies.transfer.config import EXTENDABLE, PRESETS, Config
from experiments.studies.transfer.findings import write_findings
from experiments.studies.transfer.page import make_page
from experiments.studies.transfer.run import (
    Trainer,
    missing_trainings,
    open_ledger,
    sort_ledger,
    train_all,
)
from experiments.studies.transfer.search import search_minimal_densities
from experiments.studies.transfer.sources import Source, prepare_sources, run_sources
from imp_rg.runs.files import read_json, write_json
from imp_rg.runs.folder import RunFolder, has_finished

SECONDS_PER_LEVEL = 0.5
"""Of a source, beyond training: nulls, tables, tickets, checkpoint."""


def run(config: Config) -> Path:
    """Trains what is missing, then reports; returns the folder of the results."""
    study = Study("transfer")
    use_device(config)
    path = config.out or _default_folder(config, study)
    config = _with_earlier(config, path)
    if _is_finished(config, path):
        study.say("already finished; reporting again")
    else:
        # Before anything is written: a wrong setting leaves no folder behind.
        sources = prepare_sources(config, path)
        _train(config, _open_folder(config, path), sources, study)
    write_findings(path)
    return study.report(make_page(path), path)


def _default_folder(config: Config, study: Study) -> Path:
    settings = {k: v for k, v in config.resolved().items() if k not in EXTENDABLE}
    first = Path(config.task_names[0].partition("+")[0].removeprefix("npz:")).stem
    return study.default_folder(first, config.model, settings=settings)


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
    is_same = _settings_there(path) == config.resolved()
    if config.fresh or not is_same or not has_finished(path):
        return False
    return not missing_trainings(config, open_ledger(path, config.seed_list))


def _open_folder(config: Config, path: Path) -> RunFolder:
    """Opens or begins the folder; what makes the experiment what it is must not differ."""
    settings, there = config.resolved(), _settings_there(path)
    begun_with = {} if config.fresh else {name: there[name] for name in EXTENDABLE if there}
    folder = RunFolder(path, settings | begun_with, fresh=config.fresh)
    write_json(folder.config, settings)
    return folder


def _train(config: Config, folder: RunFolder, sources: list[Source], study: Study) -> None:
    """Sources that have not run, then what is missing; each training is on disk when it is done."""
    earlier = seconds_so_far(folder)

    def describe(is_finished: bool) -> None:
        seconds = earlier + time.monotonic() - study.began
        study.describe(folder, is_finished=is_finished, seconds=seconds)

    describe(is_finished=False)
    ledger = open_ledger(folder.path, config.seed_list, fresh=config.fresh)
    missing, trainer = missing_trainings(config, ledger), Trainer(config, sources, ledger)
    _announce(config, sources, len(missing), trainer.num_workers, study)
    run_sources(sources, study, fresh=config.fresh)
    describe(is_finished=False)
    train_all(missing, trainer, study)
    if config.minimal_density == "search":
        search_minimal_densities(config, trainer)
    sort_ledger(ledger, config.task_names)
    describe(is_finished=True)


def _announce(
    config: Config, sources: list[Source], num_missing: int, num_workers: int, study: Study
) -> None:
    """Says what is to be done, and how long it will take at the speed of a first training."""
    left = [source for source in sources if config.fresh or not has_finished(source.folder)]
    if not left and not num_missing:
        return
    each, num_levels = sources[0].estimate(), (config.levels + 1) * len(left)
    seconds = num_levels * (each + SECONDS_PER_LEVEL) + num_missing * each / num_workers
    study.say(
        f"{len(sources)} tasks: {len(left)} sources of {config.levels + 1} levels and "
        f"{num_missing:,} trainings are missing, {config.seeds * (num_levels + num_missing):,} "
        f"networks; about {duration_text(seconds)}"
    )


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.transfer")
