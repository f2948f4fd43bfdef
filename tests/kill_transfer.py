"""A transfer experiment that kills itself: `python tests/kill_transfer.py COUNT [flags]`.

It sends itself SIGKILL in the middle of the rows of the COUNT-th cell that it adds.
"""

import os
import signal
import sys
import time

from experiments import transfer
from experiments.shell import cli
from experiments.studies.transfer import cells

COUNT = int(sys.argv.pop(1))


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


# A module has no `open` of its own until it is given one, which shadows the built-in.
cells.open = lambda *args: HalfFile(open(*args))  # pyright: ignore[reportAttributeAccessIssue]
cli.main(transfer.run, transfer.PRESETS, prog="python -m experiments.transfer")
