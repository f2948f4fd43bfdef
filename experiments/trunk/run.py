"""The run behind `experiments.imp_flow`: level by level, resumable, then tables and page.

In: a config and its `Setup`. Out: a run folder (`imp_rg.runs.folder`).
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.shell.cli import stop_if_asked
from experiments.shell.study import Study
from experiments.trunk.assemble import (
    Setup,
    estimate_seconds,
    headline,
    prepare,
    resolved_settings,
)
from experiments.trunk.config import Config
from experiments.trunk.nulls import record_nulls
from experiments.trunk.observables import record_observables
from experiments.trunk.state import RunState, drop_failed, restore, run_keys, start
from imp_rg.imp.levels import run_level
from imp_rg.imp.memory import give_back_freed
from imp_rg.imp.mesh import is_lead, lead_says
from imp_rg.imp.record import RunRecord
from imp_rg.imp.replicates import num_usable_cores, rows_of
from imp_rg.pytree import leaf_paths, to_flat
from imp_rg.report import write_report
from imp_rg.report.lead import lead_frame, lead_table
from imp_rg.runs import tables
from imp_rg.runs.checkpoints import Checkpoints
from imp_rg.runs.files import read_json, write_csv
from imp_rg.runs.flow import Flow
from imp_rg.runs.folder import TABLES, RunFolder, config_hash
from imp_rg.runs.run_tables import read_tables
from imp_rg.runs.save import write_tables
from imp_rg.runs.tickets import write_level, write_ticket


def is_finished(folder: RunFolder) -> bool:
    """Whether all levels and their tables are there."""
    needed = (folder.environment, *map(folder.table, TABLES))
    is_whole = all(path.exists() for path in needed)
    return lead_says(is_whole and read_json(folder.environment).get("finished", False))


def run(config: Config, study: Study) -> Path:
    """Runs or continues one run of images; returns its folder."""
    began = time.monotonic()
    setup = prepare(config, study.console)
    study.say(headline(config, setup))
    settings = resolved_settings(config, setup)
    dataset = Path(settings["dataset"].removeprefix("npz:")).stem
    path = config.out or study.default_folder(dataset, settings["model"], settings=settings)
    folder = RunFolder(path, settings, fresh=config.fresh)

    def announce() -> None:
        if config.preset == "paper":
            study.announce(estimate_seconds(config, setup), "all levels")

    run_or_report(config, setup, folder, study, began=began, announce=announce)
    return folder.path


def run_or_report(
    config: Config,
    setup: Setup,
    folder: RunFolder,
    study: Study,
    *,
    began: float,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Runs what is missing of a run in its folder, then reports.

    Args:
      config: What the levels read of the settings.
      setup: What they determine.
      folder: Opened for them.
      study: The command at work.
      began: When its preparation began, on the monotonic clock.
      announce: Says how long it will take; called if anything is missing.
    """
    if is_finished(folder):
        study.say("already finished; reporting again")
    else:
        announce()
        run_levels(config, setup, folder, study, began=began)
    if is_lead():
        report(folder, study)


def run_levels(
    config: Config, setup: Setup, folder: RunFolder, study: Study, *, began: float
) -> None:
    """Runs the levels that are missing; after each one everything it gave is on disk."""
    console = study.console
    _warn_of_cores(folder, console)
    checkpoints = Checkpoints(folder.checkpoints)
    keys = run_keys(config)
    restored = restore(config, setup, checkpoints, console)
    level, state = restored or (-1, start(config, setup, keys))
    if restored and config.save_levels:
        _warn_of_levels(folder, config.seed_list[state.active[0]], level, console)
    earlier = float(np.nansum(state.record.seconds))

    def describe(is_finished: bool) -> None:
        seconds = earlier + time.monotonic() - began
        study.describe(folder, is_finished=is_finished, seconds=seconds)

    describe(is_finished=False)
    with setup.progress as progress:
        while level < config.levels and len(state.active):
            stop_if_asked()
            level += 1
            density = setup.num_kept[level] / setup.num_kept[0]
            progress.start_level(level, density, list(state.active))
            level_began = time.monotonic()
            imp, level_record = run_level(
                setup.scheme, keys[state.active], state.imp, setup.train_data, setup.test_data
            )
            state.record.put(level, state.active, level_record, time.monotonic() - level_began)
            is_finite = np.asarray(level_record.is_finite)
            _name_failed(config, state.active[~is_finite], level, console)
            before = drop_failed(state, is_finite)
            state = drop_failed(state._replace(imp=imp), is_finite)
            if len(state.active):
                record_nulls(config, setup, keys, state.imp, state.active, state.record)
                table = folder.table("observables")
                record_observables(config, setup, table, state.active, state.imp, before.imp)
            del before  # or its weights would be held all through the next level
            progress.end_level(float(np.mean(level_record.test_metric)))
            _save(config, setup, folder, checkpoints, level, state)
            give_back_freed()
    if not len(state.active):
        console.print(f"warning: no replicate is left after level {level}; the run ends here")
    checkpoints.close()
    flow = _write_tables(config, setup, folder, state.record)
    write_csv(folder.table("spectrum"), flow.spectrum_frame(ci_level=config.ci_level))
    describe(is_finished=True)


def _warn_of_cores(folder: RunFolder, console: Console) -> None:
    """Another number of cores changes the last bits of sums on a CPU."""
    if not folder.environment.exists():
        return
    before, now = read_json(folder.environment)["cores"], num_usable_cores()
    if before != now:
        console.print(
            f"warning: begun on {before} cores, continued on {now}: last bits may differ",
            highlight=False,
        )


def _warn_of_levels(folder: RunFolder, seed: int, level: int, console: Console) -> None:
    """Levels that ran without the flag have kept no trained weights."""
    if not all(folder.trained(seed, n).exists() for n in range(level + 1)):
        console.print(
            f"warning: trained weights of levels up to {level} were not all saved;"
            " --fresh --save-levels keeps every one",
            highlight=False,
        )


def report(folder: RunFolder, study: Study) -> None:
    """Draws figures and page from the tables, and prints the lead table."""
    page = write_report(folder.path)
    study.table(lead_table(lead_frame(read_tables(folder.path).spectrum)))
    study.say(f"report: {page}")


def _name_failed(config: Config, failed: np.ndarray, level: int, console: Console) -> None:
    for row in failed:
        seed = config.seed_list[row]
        console.print(f"warning: seed {seed} stops at level {level}: its loss is not finite")


def _save(
    config: Config,
    setup: Setup,
    folder: RunFolder,
    checkpoints: Checkpoints,
    level: int,
    state: RunState,
) -> None:
    """Weights first, then the checkpoint that vouches for them, then tables."""
    if not is_lead():
        return
    settings = read_json(folder.config)
    for row, imp in zip(state.active, rows_of(state.imp), strict=True):
        seed = config.seed_list[row]
        metadata = {
            "config_hash": config_hash(settings),
            "seed": str(seed),
            "level": str(level),
            "density": str(setup.num_kept[level] / setup.num_kept[0]),
        }
        if not config.no_tickets:
            write_ticket(folder.ticket(seed, level), imp.rewind, imp.masks, metadata)
        if config.save_levels:
            write_level(folder.trained(seed, level), imp.variables, imp.masks, metadata)
    if len(state.active):
        checkpoints.save(level, to_flat(state))
    _write_tables(config, setup, folder, state.record)


def _write_tables(config: Config, setup: Setup, folder: RunFolder, record: RunRecord) -> Flow:
    """Writes the tables of all levels so far; returns the flow they hold."""
    trajectory = record.trajectory(setup.blocks, setup.num_kept)
    steps = config.train.num_steps - config.train.first_step
    seeds, leaves = config.seed_list, leaf_paths(setup.shapes)
    flow = Flow(
        name=folder.path.name,
        seeds=tuple(seeds),
        trajectory=trajectory,
        settings=read_json(folder.config),
        metrics=tables.metrics_frame(record, trajectory, seeds, steps, leaves),
    )
    write_tables(folder, flow)
    write_csv(folder.table("timing"), tables.timing_frame(record, seeds))
    return flow
