"""From a TOML file to the jobs of a sweep: one command and one run folder each, all checked.

In: the file. Out: jobs and the settings of the scheduler. Nothing runs before every experiment and
every flag of every job is known to exist.
"""

import contextlib
import importlib
import io
import itertools
import pkgutil
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import experiments
from experiments.shell import cli
from imp_rg.config import require

LOGS = "logs"
"""Folder beside the run folders, with what scheduler and jobs say."""

_KEYS = {"name", "experiment", "flags", "grid"}
_RESERVED = ("out", "fresh")


class Job(NamedTuple):
    """One command of a sweep.

    Attributes:
      name: Of its run folder.
      experiment: NAME of the command, `experiments.NAME`.
      flags: Words of its command line, ``--out`` too.
      out: Run folder.
      logs: Folder of its logs and of the record that it has finished.
    """

    name: str
    experiment: str
    flags: tuple[str, ...]
    out: Path
    logs: Path

    @property
    def record(self) -> Path:
        """What says that the job has succeeded: its command, and the seconds it took."""
        return self.logs / "finished.json"

    @property
    def command(self) -> str:
        """The same run by hand."""
        return shlex.join(["python", "-m", f"experiments.{self.experiment}", *self.flags])


class Sweep(NamedTuple):
    """Content of a file.

    Attributes:
      jobs: In the order of the file; of a grid the last flag varies fastest.
      scheduler: Settings for submitit, as in the file.
    """

    jobs: tuple[Job, ...]
    scheduler: dict[str, Any]


def read_sweep(path: Path, out: Path) -> Sweep:
    """Reads a sweep whose run folders lie in `out`.

    Raises:
      ValueError: In one line, if the file is not TOML (with its line), has other keys, an unknown
        experiment or flag, or two jobs of one name.
      OSError: If it cannot be read.
    """
    require(path.is_file(), "file", "must be a TOML file with jobs", str(path))
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: must be TOML, got {error}") from None
    unknown = sorted(content.keys() - {"jobs", "scheduler"})
    require(not unknown, str(path), "must hold [[jobs]] and [scheduler] only", unknown)
    tables, scheduler = content.get("jobs", []), content.get("scheduler", {})
    is_list = isinstance(tables, list) and all(isinstance(table, dict) for table in tables)
    require(is_list and bool(tables), str(path), "must hold jobs as [[jobs]] tables", tables)
    require(isinstance(scheduler, dict), "scheduler", "must be a table", scheduler)
    jobs = [job for table in tables for job in _expand(table, out)]
    twice = [name for name, count in Counter(job.name for job in jobs).items() if count > 1]
    require(not twice, "jobs", "must have different names; give their tables a name", twice[:1])
    for job in jobs:
        _check_flags(job)
    return Sweep(tuple(jobs), scheduler)


def _expand(table: Mapping[str, Any], out: Path) -> list[Job]:
    """The jobs of one table: every combination of its grid."""
    unknown = sorted(table.keys() - _KEYS)
    require(not unknown, "jobs", f"must have the keys {', '.join(sorted(_KEYS))} only", unknown)
    experiment = table.get("experiment", "")
    _check_experiment(experiment)
    flags, grid = _flags(table, "flags"), _flags(table, "grid")
    both = sorted(flags.keys() & grid.keys())
    require(not both, "grid", "must not repeat flags", both)
    for flag, values in grid.items():
        require(isinstance(values, list) and bool(values), flag, "must list values", values)
    first = table.get("name", experiment)
    is_name = isinstance(first, str) and re.fullmatch(r"[\w+-][\w.+-]*", first) is not None
    require(is_name and first != LOGS, "name", "must be the name of a folder, not logs", first)
    jobs = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        name = "--".join([first, *(f"{flag}-{_slug(x)}" for flag, x in chosen.items())])
        words = [word for flag, x in (flags | chosen).items() for word in _words(flag, x)]
        words += ["--out", str(out / name)]
        jobs.append(Job(name, experiment, tuple(words), out / name, out / LOGS / name))
    return jobs


def _flags(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Flags as the command line spells them."""
    flags = table.get(key, {})
    require(isinstance(flags, dict), key, "must be a table of flags", flags)
    flags = {flag.replace("_", "-"): value for flag, value in flags.items()}
    rule = f"must not hold {' or '.join(_RESERVED)}, every job has a run folder of its own"
    require(flags.keys().isdisjoint(_RESERVED), key, rule, sorted(flags))
    return flags


def _check_experiment(name: Any) -> None:
    modules = pkgutil.iter_modules(experiments.__path__)
    known = [module.name for module in modules if not module.ispkg and module.name != "sweep"]
    near = ", ".join(get_close_matches(str(name), known, n=3, cutoff=0.0))
    require(name in known, "experiment", f"must be a known name (nearest: {near})", name)


def _slug(value: Any) -> str:
    """A value as part of a file name."""
    words = value if isinstance(value, list) else [value]
    return "+".join(re.sub(r"[^\w.+-]+", "_", str(word)).strip("_") for word in words)


def _words(flag: str, value: Any) -> list[str]:
    """Words of the command line: true sets a switch, false leaves it out, lists give several."""
    values = value if isinstance(value, list) else [value]
    is_plain = all(isinstance(x, str | int | float) for x in values)
    require(is_plain, flag, "must be text, numbers, true or false, or a list of them", value)
    if isinstance(value, bool):
        return [f"--{flag}"] if value else []
    return [f"--{flag}", *map(str, values)]


def _check_flags(job: Job) -> None:
    """Reads the flags as the experiment itself will."""
    module = importlib.import_module(f"experiments.{job.experiment}")
    presets = getattr(module, "PRESETS", None) or {"default": module.Config()}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            cli.parse(presets, job.flags, prog=f"python -m experiments.{job.experiment}")
    except SystemExit:
        reason = complaint.getvalue().strip().removeprefix("error: ")
        raise ValueError(f"jobs: {job.name}: {reason}") from None
