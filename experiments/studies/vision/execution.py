"""``--replicates measure``: how seeds run side by side, by trying it on the devices at hand.

In: settings and a task. Out: settings with the driver and the strategy that were fastest.
"""

import dataclasses
from pathlib import Path

from rich.console import Console

from experiments.shell.study import AS_IS
from experiments.studies.vision.assemble import prepare
from experiments.studies.vision.config import SCRATCH, Cell, Config
from experiments.studies.vision.tasks import Task, train_config, with_execution
from experiments.trunk.assemble import TIMED_STEPS, make_trial
from imp_rg.imp.execution import Execution, admissible_executions, measure_execution
from imp_rg.imp.execution import Timing as Measured
from imp_rg.runs.files import read_json, write_json

FILE = "execution.json"
"""What was measured, beside the run folders: a continued experiment goes on as it began."""


def resolve_execution(config: Config, task: Task, out: Path, console: Console) -> Config:
    """Puts what is fastest on these devices in the place of ``measure``.

    House definition.
    """
    known = out / FILE
    if known.exists() and not config.fresh:
        found = read_json(known)
        return dataclasses.replace(config, driver=found["driver"], replicates=found["replicates"])
    measured = _measure(config, task)
    chosen = dataclasses.replace(
        config, driver=measured.best.driver, replicates=measured.best.strategy
    )
    _say(measured, console)
    _write(known, measured)
    return chosen


def _measure(config: Config, task: Task) -> Measured:
    cell = Cell(task.name, SCRATCH, config.mode)
    train = train_config(config, task.images, cell.mode)
    num_steps = min(TIMED_STEPS, train.num_steps)

    def make_call(execution: Execution):
        settings = dataclasses.replace(
            config, driver=execution.driver, replicates=execution.strategy
        )
        level_config = settings.level_config(cell, train)
        setup = prepare(settings, with_execution(settings, task), cell, None, Console(quiet=True))
        return make_trial(level_config, setup, num_steps=num_steps)

    candidates = admissible_executions(has_convolutions=True, mesh=task.execution.mesh)
    wanted = [e for e in candidates if config.driver in ("auto", e.driver)]
    return measure_execution(make_call, wanted)


def _say(measured: Measured, console: Console) -> None:
    words = ", ".join(
        f"{execution.driver} and {execution.strategy} {seconds:.3g} s"
        for execution, seconds in sorted(measured.seconds.items(), key=lambda item: item[1])
    )
    console.print(f"replicates: {TIMED_STEPS} steps of all seeds take by {words}", **AS_IS)


def _write(path: Path, measured: Measured) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"driver": execution.driver, "replicates": execution.strategy, "seconds": seconds}
        for execution, seconds in measured.seconds.items()
    ]
    best = {"driver": measured.best.driver, "replicates": measured.best.strategy}
    write_json(path, best | {"measured": rows})
