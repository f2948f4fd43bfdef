"""Many runs through a scheduler that is there already: Slurm, or this machine.

    python -m experiments.sweep FILE             # on Slurm where there is one, else here
    python -m experiments.sweep FILE --dry-run   # only prints the commands
    python -m experiments.sweep FILE --local --jobs 2

FILE lists experiments, flags, and grids of which every combination is a job:

    [scheduler]                    # given to submitit as it stands; without Slurm not needed
    timeout_min = 240
    gpus_per_node = 1
    slurm_partition = "gpu"

    [[jobs]]
    name = "digits"                # first part of the folders' names, else the experiment's
    experiment = "imp_flow"
    flags = { preset = "smoke", seeds = 5, save_levels = true }
    grid = { model = ["lenet300-100", "resnet14"], prune_fraction = [0.2, 0.5] }

which makes ``runs/sweep/FILE/digits--model-resnet14--prune-fraction-0.2`` and three more run
folders, and ``logs/`` beside them. All flags are checked before anything runs. Failed jobs are
tried again, then listed with what they said last; finished ones are never run again. The same
command goes on after a stop of any kind: jobs that Slurm still has are waited for, not submitted
again (one that is killed within seconds of its submission, before Slurm's accounting knows it,
can be); attempts that outlive a killed sweep on this machine finish first. Out of time, a job is
requeued by submitit (three times, or ``slurm_max_num_timeout``) and goes on after its last level.

Here one job runs at a time; with ``gpus_per_node`` each sees the first so many GPUs only, without
it all of them. Needs ``pip install 'imp-rg[sweep]'``.
"""

import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.table import Table

from experiments.shell import cli
from experiments.shell.settings import Flag, settings
from experiments.shell.study import Study, duration_text
from experiments.studies.sweep.file import LOGS, Job, read_sweep
from experiments.studies.sweep.scheduler import Scheduler, outcome_of
from imp_rg.config import require
from imp_rg.runs.files import read_json
from imp_rg.runs.folder import has_finished

if TYPE_CHECKING:
    from experiments.studies.sweep.job import Outcome

EXIT_FAILED_JOBS = 1


@settings
class Config:
    """Runs many experiments through a scheduler.

    Attributes:
      file: TOML file with the jobs.
      local: Use this machine even where there is Slurm.
      jobs: Jobs under way at once; by default 1 on this machine, all on Slurm.
      retries: Further attempts at a job that failed.
      out: Folder of the run folders; by default runs/sweep/FILE.
      dry_run: Print the commands, run nothing.
    """

    file: tyro.conf.Positional[Path] = Path("sweep.toml")
    local: Flag = False
    jobs: int | None = None
    retries: int = 1
    out: Path | None = None
    dry_run: Flag = False

    def __post_init__(self):
        require(self.jobs is None or self.jobs >= 1, "jobs", "must be at least 1", self.jobs)
        require(self.retries >= 0, "retries", "must not be negative", self.retries)


def run(config: Config) -> Path:
    """Runs what is not finished; returns the folder of the run folders.

    Raises:
      ValueError: If the file is wrong or submitit is not there, before anything runs.
      SystemExit: With 1, if jobs have failed; they have been listed.
    """
    study = Study("sweep")
    out = config.out or Path("runs") / "sweep" / config.file.stem
    sweep = read_sweep(config.file, out)
    if config.dry_run:
        for job in sweep.jobs:
            study.say(f"{'# finished: ' if is_finished(job) else ''}{job.command}")
        return out
    scheduler = Scheduler(sweep.scheduler, folder=out / LOGS, local=config.local)
    left = [job for job in sweep.jobs if not is_finished(job)]
    where = "this machine" if scheduler.is_local else "Slurm"
    study.say(f"{len(sweep.jobs)} jobs, {len(left)} to run, on {where}: {out}")
    outcomes = _run_jobs(config, left, scheduler, study)
    _print_table(sweep.jobs, outcomes, study)
    failed = [job for job, outcome in outcomes.items() if outcome.exit_code != 0]
    for job in failed:
        study.say(f"failed: {job.name}: {outcomes[job].said}; logs: {job.logs}")
    if failed:
        raise SystemExit(EXIT_FAILED_JOBS)
    return out


def is_finished(job: Job) -> bool:
    """Whether this very command has succeeded and its run folder is still whole."""
    if not job.record.is_file() or read_json(job.record)["command"] != job.command:
        return False
    keeps_state = (job.out / "environment.json").is_file()
    return job.out.is_dir() and (has_finished(job.out) or not keeps_state)


def _run_jobs(
    config: Config, jobs: list[Job], scheduler: Scheduler, study: Study
) -> "dict[Job, Outcome]":
    """Hands the jobs to the scheduler, a few at a time, and waits for all of them."""
    waiting, under_way, tries = deque(jobs), {}, Counter()
    outcomes: dict[Job, Outcome] = {}
    limit = config.jobs or (1 if scheduler.is_local else len(jobs))

    def say(what: str, job: Job) -> None:
        study.say(f"[{len(outcomes)}/{len(jobs)}] {what} {job.name}")

    try:
        while waiting or under_way:
            if cli.interrupted.is_set():
                raise KeyboardInterrupt
            while waiting and len(under_way) < limit:
                job = waiting.popleft()
                earlier = scheduler.find(job) if job not in tries else None
                tries[job] += 1
                under_way[job] = earlier or scheduler.submit(job)
                say("waiting for" if earlier else "submitted", job)
            for job in [job for job, handle in under_way.items() if handle.done()]:
                outcome = outcome_of(under_way.pop(job))
                if outcome.exit_code != 0 and tries[job] <= config.retries:
                    waiting.append(job)
                    say(f"failed, will be tried again ({outcome.said}):", job)
                else:
                    outcomes[job] = outcome
                    say("finished" if outcome.exit_code == 0 else "failed", job)
            time.sleep(scheduler.pause)
    except KeyboardInterrupt:
        scheduler.stop(under_way.values())
        raise
    return outcomes


def _print_table(jobs: tuple[Job, ...], outcomes: "dict[Job, Outcome]", study: Study) -> None:
    table = Table(title="Jobs")
    for column in ("job", "state", "time"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        state = "finished" if job in outcomes else "finished before"
        if job in outcomes and outcomes[job].exit_code != 0:
            state = "failed"
        is_known = state != "failed" and job.record.is_file()
        seconds = duration_text(read_json(job.record)["seconds"]) if is_known else ""
        table.add_row(job.name, state, seconds)
    study.console.print(table)


if __name__ == "__main__":
    cli.main(
        run,
        {"default": Config()},
        prog="python -m experiments.sweep",
        when_stopped="jobs on Slurm go on, finished ones are kept; the same command goes on here",
    )
