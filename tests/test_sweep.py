"""Sweeps: files to jobs, the loop around the scheduler, and real jobs on the local executor."""

import fcntl
import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from small_run import ROOT, everything

submitit = pytest.importorskip("submitit")

from experiments import sweep  # noqa: E402  (after the skip)
from experiments.shell import cli  # noqa: E402  (after the skip)
from experiments.studies.sweep.file import Job, read_sweep  # noqa: E402  (after the skip)
from experiments.studies.sweep.job import Attempt, Outcome  # noqa: E402  (after the skip)
from experiments.studies.sweep.scheduler import Scheduler, outcome_of  # noqa: E402  (after the skip)

JOB = "[[jobs]]\nexperiment = 'imp_flow'\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def job_named(name: str, folder: Path) -> Job:
    return Job(name, "imp_flow", (), folder / name, folder / "logs" / name)


def test_every_combination_is_a_job_with_a_folder(tmp_path):
    text = """
        [scheduler]
        timeout_min = 60
        [[jobs]]
        name = "digits"
        experiment = "imp_flow"
        flags = { preset = "smoke", save_levels = true, deterministic = false, null = ["shuffled"] }
        grid = { model = ["lenet8", "lenet32-16"], prune_fraction = [0.2, 0.5] }
        [[jobs]]
        experiment = "transfer"
        grid = { tasks = [["digits", "digits+permute=3"]] }
    """
    read = read_sweep(write(tmp_path, text), tmp_path / "out")
    assert read.scheduler == {"timeout_min": 60}
    assert [job.name for job in read.jobs] == [
        "digits--model-lenet8--prune-fraction-0.2",
        "digits--model-lenet8--prune-fraction-0.5",
        "digits--model-lenet32-16--prune-fraction-0.2",
        "digits--model-lenet32-16--prune-fraction-0.5",
        "transfer--tasks-digits+digits+permute_3",
    ]
    out = tmp_path / "out" / read.jobs[3].name
    assert read.jobs[3].command == (
        "python -m experiments.imp_flow --preset smoke --save-levels --null shuffled "
        f"--model lenet32-16 --prune-fraction 0.5 --out {out}"
    )
    assert read.jobs[4].flags[:3] == ("--tasks", "digits", "digits+permute=3")


def test_the_example_in_the_docstring(tmp_path):
    example = textwrap.dedent(str(sweep.__doc__).split("is a job:\n")[1].split("which makes")[0])
    read = read_sweep(write(tmp_path, example), tmp_path)
    assert read.jobs[2].name == "digits--model-resnet14--prune-fraction-0.2"
    assert len(read.jobs) == 4
    Scheduler(read.scheduler, folder=tmp_path, local=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[jobs]\n", r"sweep.toml: must be TOML, got .*line 1"),
        ("runs = 3", r"must hold \[\[jobs\]\] and \[scheduler\] only, got \['runs'\]"),
        ("", r"must hold jobs as \[\[jobs\]\] tables, got \[\]"),
        ("[jobs]\nexperiment = 'imp_flow'", r"must hold jobs as \[\[jobs\]\] tables, got {"),
        (JOB + "seeds = 3", r"jobs: must have the keys .* only, got \['seeds'\]"),
        ("[[jobs]]\nname = 'a'", "experiment: must be a known name .*, got ''"),
        ("[[jobs]]\nexperiment = 'imp_flo'", r"nearest: imp_flow, .*got 'imp_flo'"),
        ("[[jobs]]\nexperiment = 'imp_config'", r"must be a known name \(nearest: "),
        (JOB + "flags = { levls = 3 }", r"jobs: imp_flow: .*--levls.* \(nearest: --levels\)"),
        (JOB + "flags = { levels = 0 }", "jobs: imp_flow: .*must be at least 1"),
        (JOB + "grid = { levels = ['two'] }", "jobs: imp_flow--levels-two: .*levels"),
        (JOB + "flags = { out = 'x' }", r"flags: must not hold out or fresh, .*got \['out'\]"),
        (JOB + "grid = { levels = 3 }", "levels: must list values, got 3"),
        (JOB + "grid = { levels = [] }", r"levels: must list values, got \[\]"),
        (JOB + "flags = { seeds = 1 }\ngrid = { seeds = [1] }", "grid: must not repeat flags"),
        (JOB + "flags = { levels = 2020-01-01 }", "levels: must be text, numbers, true or false"),
        (JOB + "flags = 3", "flags: must be a table of flags, got 3"),
        (JOB + JOB, r"jobs: must have different names; give .* a name, got \['imp_flow'\]"),
        (JOB + "name = 'logs'", "name: must be the name of a folder, not logs, got 'logs'"),
        (JOB + "name = '../a'", "name: must be the name of a folder, not logs, got '../a'"),
    ],
)
def test_a_bad_file_gets_one_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read_sweep(write(tmp_path, text), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="file: must be a TOML file with jobs, got '.*gone.toml'"):
        read_sweep(tmp_path / "gone.toml", tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partitions": "gpu"}, "scheduler: must be settings of submitit; .*'partitions'"),
        ({"timeout_min": "1 h"}, 'scheduler: .*"timeout_min" expected type'),
        ({"slurm_colour": "red"}, "scheduler: must .*Unknown argument 'colour'"),
        ({"nodes": 2}, "scheduler: must .*only one node"),
    ],
)
def test_settings_that_submitit_refuses(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        Scheduler(settings, folder=tmp_path, local=True)
    assert "\n" not in str(caught.value)


def test_without_submitit_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    config = sweep.Config(file=write(tmp_path, JOB), out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"submitit: must be installed .*'imp-rg\[sweep\]'"):
        sweep.run(config)
    assert not (tmp_path / "out").exists()


class FakeHandle:
    """A job that is done when looked at for the second time."""

    def __init__(self, exit_code):
        self.exit_code, self.looks = exit_code, 0

    def done(self):
        self.looks += 1
        return self.looks > 1

    def exception(self):
        return None

    def result(self):
        return Outcome(self.exit_code, "error: it said")


class FakeScheduler:
    """Fails each job as often as told; counts what is under way."""

    is_local, pause = True, 0.0

    def __init__(self, num_failures, known=()):
        self.left, self.known = dict(num_failures), known
        self.submitted, self.handles, self.stopped, self.most = [], [], [], 0

    def find(self, job):
        return self._start(job) if job.name in self.known else None

    def submit(self, job):
        self.submitted.append(job.name)
        return self._start(job)

    def _start(self, job):
        self.left[job.name] = self.left.get(job.name, 0) - 1
        self.handles.append(FakeHandle(2 if self.left[job.name] >= 0 else 0))
        self.most = max(self.most, sum(handle.looks < 2 for handle in self.handles))
        return self.handles[-1]

    def stop(self, handles):
        self.stopped += handles


def run_jobs(scheduler, folder, **settings):
    study = sweep.Study("sweep", quiet=True)
    jobs = [job_named(name, folder) for name in "abc"]
    outcomes = sweep._run_jobs(sweep.Config(**settings), jobs, scheduler, study)
    return {job.name: outcome.exit_code for job, outcome in outcomes.items()}


@pytest.mark.parametrize(("jobs", "most"), [(None, 1), (2, 2), (9, 3)])
def test_so_many_jobs_at_once(jobs, most, tmp_path):
    scheduler = FakeScheduler({})
    assert run_jobs(scheduler, tmp_path, jobs=jobs) == {"a": 0, "b": 0, "c": 0}
    assert scheduler.submitted == ["a", "b", "c"]
    assert scheduler.most == most


def test_failures_are_tried_again_after_the_others(tmp_path):
    scheduler = FakeScheduler({"a": 1, "b": 9})
    assert run_jobs(scheduler, tmp_path, retries=2) == {"a": 0, "b": 2, "c": 0}
    assert scheduler.submitted == ["a", "b", "c", "a", "b", "b"]


def test_what_the_scheduler_still_has_is_waited_for(tmp_path):
    scheduler = FakeScheduler({"b": 1}, known=("b",))
    assert run_jobs(scheduler, tmp_path) == {"a": 0, "b": 0, "c": 0}
    assert scheduler.submitted == ["a", "c", "b"]  # b only after it had failed


def test_interrupt_stops_the_jobs_here(tmp_path, monkeypatch):
    scheduler = FakeScheduler({})
    monkeypatch.setattr(FakeHandle, "done", lambda handle: cli.interrupted.set())
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs(scheduler, tmp_path, jobs=2)
    finally:
        cli.interrupted.clear()
    assert scheduler.stopped == scheduler.handles and len(scheduler.handles) == 2


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Programs that answer as Slurm's do; `state` says how the job is."""
    programs = tmp_path / "bin"
    script(programs / "srun", "")
    script(programs / "sbatch", "echo Submitted batch job $$")
    script(programs / "sacct", f"echo 'JobID|State|NodeList'; cat {tmp_path}/state")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return Scheduler({"timeout_min": 7, "slurm_partition": "gpu"}, folder=tmp_path, local=False)


@pytest.mark.parametrize(
    ("state", "is_known"),
    [("PENDING", True), ("RUNNING", True), ("FAILED", False), ("TIMEOUT", False), (None, False)],
)
def test_jobs_that_slurm_has_are_not_submitted_twice(slurm, state, is_known, tmp_path):
    job = job_named("a", tmp_path)
    assert not slurm.is_local
    assert slurm.find(job) is None
    submitted = slurm.submit(job)
    batch = submitted.paths.submission_file.read_text()
    assert "--partition=gpu" in batch and "--time=7" in batch and "--job-name=a" in batch
    (tmp_path / "state").write_text(f"{submitted.job_id}|{state}|node1\n" if state else "")
    found = slurm.find(job)
    assert (found.job_id if found else None) == (submitted.job_id if is_known else None)


def test_on_slurm_a_time_limit_is_asked_for(slurm, tmp_path):
    with pytest.raises(ValueError, match="timeout_min: must be set on Slurm, in minutes, got {}"):
        Scheduler({}, folder=tmp_path, local=False)


def test_two_attempts_do_not_share_a_folder(tmp_path, monkeypatch):
    """The second waits while the experiment of the first lives."""
    for name, value in (("EXECUTOR", "local"), ("FOLDER", tmp_path), ("LOCAL_JOB_ID", "1")):
        monkeypatch.setenv(f"SUBMITIT_{name}", str(value))
    (tmp_path / "1_0_log.err").write_text("first\nlast\n\n")
    record = tmp_path / "finished.json"
    attempt = Attempt("python -m this", ("this",), record, {"PYTHONHOME": None})
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(attempt()))
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        time.sleep(0.5)
        assert not record.exists()
    thread.join()
    assert outcomes == [Outcome(0, "last")] and record.exists()
    assert attempt.checkpoint().function == attempt  # out of time, it is requeued as it is


def test_real_jobs_here(tmp_path, monkeypatch, capfd):
    """One that succeeds, one that fails; started again, the first is left alone."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    text = f"""
        [[jobs]]
        experiment = "imp_flow"
        flags = {{ model = "lenet8", num_steps = 4, rewind_step = 1, seeds = 1, ci_level = 0.9 }}
        grid = {{ levels = [1] }}
        [[jobs]]
        name = "no-data"
        experiment = "imp_flow"
        flags = {{ dataset = "npz:{tmp_path}/none.npz" }}
    """
    # Failures that are tried again have a test of their own, without processes.
    config = sweep.Config(
        file=write(tmp_path, text), out=tmp_path / "out", local=True, jobs=2, retries=0
    )
    with pytest.raises(SystemExit) as stop:
        sweep.run(config)
    said = capfd.readouterr().out
    assert stop.value.code == sweep.EXIT_FAILED_JOBS
    assert said.count("submitted no-data") == 1 and said.count("submitted imp_flow") == 1
    reason = f"error: dataset: npz: needs the path of a file, got '{tmp_path}/none.npz'"
    assert f"failed: no-data: {reason}; logs: {tmp_path}/out/logs/no-data" in said
    run_folder = tmp_path / "out" / "imp_flow--levels-1"
    assert (run_folder / "report.html").is_file()

    before = everything(tmp_path / "out")
    text = text.split("[[jobs]]\n        name")[0]
    config = sweep.Config(file=write(tmp_path, text), out=tmp_path / "out")
    assert sweep.run(config) == tmp_path / "out"
    said = capfd.readouterr().out
    assert "1 jobs, 0 to run" in said and "submitted" not in said and "finished before" in said
    sweep.run(sweep.Config(file=config.file, out=config.out, dry_run=True))
    assert capfd.readouterr().out.startswith("# finished: python -m experiments.imp_flow --model")
    assert everything(tmp_path / "out") == before

    (job,) = read_sweep(config.file, tmp_path / "out").jobs
    assert sweep.is_finished(job)
    assert not sweep.is_finished(job._replace(flags=(*job.flags, "--seeds", "2")))
    (run_folder / "environment.json").write_text('{"finished": false}')
    assert not sweep.is_finished(job)


def test_a_job_that_is_killed_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 0)
    job = job_named("a", tmp_path)
    scheduler = Scheduler({}, folder=tmp_path / "logs", local=True)
    handle = scheduler.submit(job)
    scheduler.stop([handle])
    while not handle.done():
        time.sleep(0.05)
    assert outcome_of(handle).exit_code is None and outcome_of(handle).said
    assert not sweep.is_finished(job)
