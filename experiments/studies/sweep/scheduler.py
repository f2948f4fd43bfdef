"""The part of submitit that a sweep uses: one job handed over, found again, and its outcome.

In: jobs. Out: submitit's own handles. Nothing is scheduled here.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.studies.sweep.file import Job
from imp_rg.config import require

if TYPE_CHECKING:
    import submitit

    from experiments.studies.sweep.job import Outcome

_MINUTES_HERE = 365 * 24 * 60
"""Time limit of a job on this machine unless one is set; submitit's own is two minutes."""


class Scheduler:
    """Slurm or this machine, by submitit.

    Attributes:
      is_local: Whether jobs run on this machine.
      pause: Seconds between two looks at what is under way.
    """

    def __init__(self, settings: dict[str, Any], *, folder: Path, local: bool):
        """Checks the settings; nothing is submitted.

        Args:
          settings: Parameters of submitit's `AutoExecutor`.
          folder: Where submitit may try them.
          local: Whether to use this machine even where there is Slurm.

        Raises:
          ValueError: If submitit is not installed or does not accept a setting.
        """
        try:
            import submitit
        except ImportError as error:
            raise ValueError(
                "submitit: must be installed to run a sweep; pip install 'imp-rg[sweep]'"
            ) from error
        self._cluster = "local" if local else submitit.AutoExecutor.which()
        self.is_local = self._cluster == "local"
        self.pause = 0.2 if self.is_local else 5.0
        rule = "must be set on Slurm, in minutes"
        require(self.is_local or "timeout_min" in settings, "timeout_min", rule, settings)
        self._settings = {"timeout_min": _MINUTES_HERE} | settings
        # Without GPUs asked for, submitit hides those of this machine.
        hides = self.is_local and "gpus_per_node" not in settings
        name = "CUDA_VISIBLE_DEVICES"
        self._environment = {name: os.environ.get(name)} if hides else {}
        try:
            self._executor(folder, "sweep")
        except (NameError, AssertionError, ValueError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"scheduler: must be settings of submitit; {reason}") from None

    def _executor(self, folder: Path, name: str) -> "submitit.AutoExecutor":
        import submitit

        of_executor = {k: v for k, v in self._settings.items() if k.endswith("max_num_timeout")}
        others = {k: v for k, v in self._settings.items() if k not in of_executor}
        executor = submitit.AutoExecutor(folder, cluster=self._cluster, **of_executor)
        executor.update_parameters(**{"name": name} | others)
        return executor

    def submit(self, job: Job) -> "submitit.Job[Outcome]":
        """Hands a job over; every attempt has a folder of its own, as process ids come again."""
        from experiments.studies.sweep.job import Attempt

        number = len(list(job.logs.glob("attempt*"))) + 1
        executor = self._executor(job.logs / f"attempt{number}", job.name)
        words = (f"experiments.{job.experiment}", *job.flags)
        return executor.submit(
            Attempt(job.command, words, job.record.absolute(), self._environment)
        )

    def find(self, job: Job) -> "submitit.Job[Outcome] | None":
        """The attempt that an earlier sweep submitted to Slurm, if Slurm still has it."""
        if self.is_local:
            return None
        import submitit

        submitted = max(job.logs.glob("attempt*/*_submitted.pkl"), key=_age, default=None)
        if submitted is None:
            return None
        handle = submitit.SlurmJob(submitted.parent, submitted.name.removesuffix("_submitted.pkl"))
        is_gone = handle.done(force_check=True) or handle.state == "UNKNOWN"
        return None if is_gone else handle

    def stop(self, handles: Iterable["submitit.Job[Outcome]"]) -> None:
        """Stops what runs on this machine; what Slurm has goes on."""
        if self.is_local:
            for handle in handles:
                handle.cancel()


def _age(path: Path) -> float:
    return path.stat().st_mtime


def outcome_of(handle: "submitit.Job[Outcome]") -> "Outcome":
    """How an attempt ended, whether or not it could say so itself."""
    from experiments.studies.sweep.job import Outcome, last_line

    error = handle.exception()
    if error is None:
        return handle.result()
    said = last_line(handle.paths.stderr)
    return Outcome(None, said or str(error).split("\n")[0])
