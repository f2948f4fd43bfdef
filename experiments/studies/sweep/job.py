"""What submitit runs for one job of a sweep, on whichever machine."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from filelock import lock_descriptor
from submitit import JobEnvironment
from submitit.helpers import Checkpointable

from imp_rg.runs.files import write_json


class Outcome(NamedTuple):
    """How an attempt ended.

    Attributes:
      exit_code: Of the experiment, negative for a signal; None if it never came to an end.
      said: Last line on stderr.
    """

    exit_code: int | None
    said: str


@dataclasses.dataclass(frozen=True)
class Attempt(Checkpointable):
    """One attempt at a job.

    Out of time or preempted, submitit stops and requeues it: the experiment goes on where it was.

    Attributes:
      command: As a user would type it.
      words: Module and flags.
      record: File to write when it has succeeded.
      environment: Variables to set, or to remove (None), beside those of the scheduler.
    """

    command: str
    words: tuple[str, ...]
    record: Path
    environment: Mapping[str, str | None]

    def __call__(self) -> Outcome:
        """Runs the experiment; success is recorded beside the logs."""
        variables = (os.environ | self.environment).items()
        with open(self.record.with_name("lock"), "w") as lock:
            # An attempt of a sweep that was killed may still be at it: two must not share a folder.
            # Its lock lives as long as the experiment. Some file systems of clusters have none.
            with contextlib.suppress(OSError):
                lock_descriptor(lock.fileno())
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", *self.words],
                env={name: value for name, value in variables if value is not None},
                pass_fds=[lock.fileno()],
            )
        if done.returncode == 0:
            seconds = round(time.monotonic() - began, 1)
            write_json(self.record, {"command": self.command, "seconds": seconds})
        return Outcome(done.returncode, last_line(JobEnvironment().paths.stderr))


def last_line(path: Path) -> str:
    """The last line of a log that is not blank."""
    lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
