"""A run folder: where each file lies, and whether it belongs to the settings at hand."""

import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from imp_rg.imp.replicates import num_usable_cores
from imp_rg.runs.files import is_temporary, read_json, remove_temporary, write_json
from imp_rg.runs.lock import lock_folder

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "imp-rg")
TABLES = ("flow", "null_flow", "metrics", "timing", "spectrum")
"""What every run of ours has."""

OTHER_TABLES = ("observables", "similarity")


class RunFolder:
    """Paths of one run, checked against its settings when opened, and closed to other processes.

    Attributes:
      path: The folder.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, fresh: bool):
        """Opens or creates the folder.

        Args:
          path: Where.
          settings: Resolved settings, JSON types only.
          fresh: Whether a run that is there already is thrown away.

        Raises:
          ValueError: If the folder holds something that is not a run, or a run made with other
            settings (they are listed), or if another process is at work in it.
          OSError: If it cannot be written.
        """
        self.path = path
        try:
            self._open(json.loads(json.dumps(settings)), fresh)
        except OSError as error:
            raise OSError(f"out: must be a writable folder; {error}") from error

    def _open(self, settings: dict[str, Any], fresh: bool) -> None:
        """Checks what is there before anything is changed."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self.path)
        there = read_json(self.config) if self.config.exists() else None
        if not _is_run(there, settings):
            # A start that was killed at once leaves a temporary file and no config.
            if there is not None or not all(map(is_temporary, self.path.iterdir())):
                raise ValueError(
                    f"out: must be empty or a run folder, {self.path} holds something else"
                )
        if there is not None and fresh:
            self._throw_away()
        elif there is not None:
            _check_same(self.path, there, settings)
        if there is None or fresh:
            write_json(self.config, settings)
        remove_temporary(self.path)

    def _throw_away(self) -> None:
        """Removes what a run writes and nothing else; the config stays until it is replaced."""
        self.environment.unlink(missing_ok=True)  # first: it says that the run is finished
        for name in ("checkpoints", "tickets", "levels", "figures"):
            if (self.path / name).exists():
                shutil.rmtree(self.path / name)
        for file in (*map(self.table, TABLES + OTHER_TABLES), self.path / "report.html"):
            file.unlink(missing_ok=True)

    @property
    def config(self) -> Path:
        """Every resolved setting."""
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        """Versions, device, commit, command, seconds."""
        return self.path / "environment.json"

    @property
    def checkpoints(self) -> Path:
        """What resuming needs."""
        return self.path / "checkpoints"

    def table(self, name: str) -> Path:
        """One of `TABLES` or `OTHER_TABLES`."""
        return self.path / f"{name}.csv"

    def ticket(self, seed: int, level: int) -> Path:
        """Rewind variables and masks of one seed and level."""
        return ticket_path(self.path, seed, level)

    def trained(self, seed: int, level: int) -> Path:
        """Trained variables and masks of one seed and level, if the run keeps them."""
        return self.path / "levels" / f"seed{seed}" / f"level{level:02d}.safetensors"


def ticket_path(folder: Path, seed: int, level: int) -> Path:
    """Where a run folder keeps the ticket of one seed and level."""
    return folder / "tickets" / f"seed{seed}-level{level:02d}.safetensors"


def has_finished(folder: Path) -> bool:
    """Whether the environment in a run folder says that the run has ended."""
    environment = folder / "environment.json"
    return environment.is_file() and read_json(environment).get("finished", False)


def config_hash(settings: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that name a set of settings."""
    canonical = json.dumps(settings, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()[:8]


def _is_run(there: Any, here: Mapping[str, Any]) -> bool:
    """Whether a config is one of ours: other programs, too, keep a ``config.json``."""
    return isinstance(there, dict) and len(there.keys() & here.keys()) > len(here) / 2


def _check_same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    names = sorted(set(there) | set(here))
    differing = [
        f"{name} {there.get(name)!r} there, {here.get(name)!r} here"
        for name in names
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise ValueError(
            f"out: {path} holds a run with other settings ({'; '.join(differing)}); "
            "choose another --out, or --fresh to throw that run away"
        )


def describe_environment(*, command: str, seconds: float) -> dict[str, Any]:
    """What a reader needs to repeat a run: versions, device, commit, command, time, memory."""
    device = jax.devices()[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "command": command,
        "commit": _commit(),
        "device": f"{jax.default_backend()} ({device.device_kind})",
        "cores": num_usable_cores(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "seconds": round(seconds, 1),
        # Linux counts kilobytes, macOS bytes.
        "peak_memory_gb": round(peak / (1e9 if sys.platform == "darwin" else 1e6), 2),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", os.fspath(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
