"""A study that kills itself: `python tests/kill_ledger.py COMMAND COUNT [flags]`.

It sends itself SIGKILL in the middle of the rows of the COUNT-th training added to cells.csv.
"""

import importlib
import os
import signal
import sys
import time
from unittest import mock

from experiments.shell import cli, ledger
from experiments.trunk import run, several

COMMAND, COUNT = sys.argv.pop(1), int(sys.argv.pop(1))


class HalfFile:
    """A file that is killed halfway through the last of the given number of writes."""

    left = COUNT

    def __init__(self, file):
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, content):
        """Writes all of it, or two thirds and no more."""
        HalfFile.left -= 1
        if HalfFile.left:
            return self._file.write(content)
        self._file.write(content[: 2 * len(content) // 3])
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


def open_half(path, mode):
    """Other ledgers, such as that of times, are written as they are."""
    file = open(path, mode)
    return HalfFile(file) if path.name == "cells.csv" else file


# A module has no `open` of its own until it is given one, which shadows the built-in.
ledger.open = open_half  # pyright: ignore[reportAttributeAccessIssue]
run.report, several.estimate_seconds = mock.Mock(), lambda *_: 1.0
command = importlib.import_module(f"experiments.{COMMAND}")
cli.main(command.run, command.PRESETS, prog=f"python -m experiments.{COMMAND}")
