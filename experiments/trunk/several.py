"""The runs of images that a study is made of: checked together, timed together, run one by one."""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from experiments.shell.study import Study
from experiments.trunk.assemble import Setup, estimate_seconds, prepare
from experiments.trunk.config import Config
from experiments.trunk.run import run
from imp_rg.runs.files import read_json
from imp_rg.runs.folder import has_finished

K = TypeVar("K", bound=Hashable)


def prepare_all(configs: Mapping[K, Config]) -> dict[K, Setup]:
    """Checks the settings of all runs; a wrong one leaves no folder behind."""
    quiet = Console(quiet=True)
    return {name: prepare(config, quiet) for name, config in configs.items()}


def missing(configs: Mapping[K, Config]) -> dict[K, Config]:
    """The runs that have not finished."""
    return {
        name: config
        for name, config in configs.items()
        if config.fresh or config.out is None or not has_finished(config.out)
    }


def estimate_all(configs: Mapping[K, Config], setups: Mapping[K, Setup]) -> dict[K, float]:
    """Seconds of each run, from a few steps of it."""
    return {name: estimate_seconds(config, setups[name]) for name, config in configs.items()}


def run_all(
    configs: Mapping[K, Config], study: Study, *, title: Callable[[K], str]
) -> dict[K, Path]:
    """Runs what is missing, each below its title; returns the folders."""
    folders = {}
    for name, config in configs.items():
        study.say(title(name))
        folders[name] = run(config, study)
    return folders


def seconds_of_runs(folders: Mapping[K, Path]) -> float:
    """What the runs took in all their starts."""
    return sum(read_json(folder / "environment.json")["seconds"] for folder in folders.values())
