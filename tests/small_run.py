"""A run of a few seconds, and what of it must come out the same bit by bit."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from experiments import imp_flow
from experiments.shell import cli
from experiments.trunk import run

ROOT = Path(__file__).resolve().parents[1]

FLAGS = (
    *("--model", "lenet32-16", "--seeds", "2", "--levels", "3", "--batch-size", "32"),
    *("--num-steps", "20", "--rewind-step", "2", "--driver", "dispatch"),
    *("--replicates", "threads"),
)
TABLES = ("flow.csv", "null_flow.csv", "metrics.csv", "spectrum.csv", "observables.csv")


def run_in_process(*flags):
    """Runs the experiment as the command would, here and without the page; returns the folder."""
    with mock.patch.object(run, "report"):
        return imp_flow.run(cli.parse(imp_flow.PRESETS, flags, prog="imp_flow"))


@functools.cache
def finished_run():
    """A finished run of `FLAGS`, made once for all tests; they read it or copy it."""
    out = Path(tempfile.mkdtemp(prefix="imp_rg_test_")) / "run"
    return run_in_process(*FLAGS, "--out", str(out))


def start(*command, **environment):
    """Starts the command in a process of its own, at the root of the repository."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contents(folder):
    """Bytes of everything that a resumed run must repeat, by name."""
    files = [folder / name for name in TABLES] + sorted((folder / "tickets").iterdir())
    return {file.name: file.read_bytes() for file in files}


def everything(folder):
    """Bytes of all files of a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
