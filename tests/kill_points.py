"""An experiment that kills itself: `python tests/kill_points.py POINT MARKER [flags]`.

POINT says when, as KIND:WHERE:COUNT. The process writes what it was about to do to the file MARKER
and sends itself SIGNAL (SIGKILL unless set in the environment) when for the COUNT-th time it

* ``half:END``: has written half of the bytes of a file, ".NAME" of which ends in END;
* ``rename:END``: has all of them in the temporary file, not yet renamed;
* ``checkpoint:``: touches a file or folder while Orbax saves (COUNT runs over all levels);
* ``during:MILLISECONDS``: is so far into a save of Orbax, which is slowed down to 300 ms;
* ``prune:``: has made a mask on the host, not yet used;
* ``train:``: reports a step;
* ``null:``: records the nulls of a level.

Anything that the writers do is theirs: only the moment is chosen here.
"""

import builtins
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path

from experiments import imp_flow
from experiments.shell import cli
from experiments.trunk import run
from experiments.trunk.progress import LevelProgress
from imp_rg.imp import levels
from imp_rg.runs import files
from imp_rg.runs.checkpoints import Checkpoints

SIGNAL = signal.Signals[os.environ.get("SIGNAL", "SIGKILL")]


class Trap:
    """Counts the passes of a point and strikes at the chosen one."""

    def __init__(self, count, marker):
        self.left, self.marker, self.is_armed = count, Path(marker), True

    def passes(self):
        """Whether this pass is the chosen one."""
        self.left -= 1
        return self.left == 0

    def strike(self, what):
        """Says what is being interrupted, then sends the signal to this process."""
        self.marker.write_text(str(what))
        os.kill(os.getpid(), SIGNAL)
        if SIGNAL == signal.SIGKILL:
            time.sleep(60)  # nothing more may happen while the signal is on its way


def put(owner, name, hooked):
    """Replaces an attribute for the life of the process."""
    setattr(owner, name, hooked)


def half(trap, name):
    class HalfFile:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, attribute):
            return getattr(self.file, attribute)

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            trap.strike(f"half of {self.file.name}")

    def open_half(path, mode):
        file = builtins.open(path, mode)
        return HalfFile(file) if _is_temporary_of(path, name) and trap.passes() else file

    put(files, "open", open_half)


def rename(trap, name):
    def replace(source, target):
        if f".{target.name}".endswith(name) and trap.passes():
            trap.strike(f"rename of {source}")
        os.replace(source, target)

    put(files, "os", types.SimpleNamespace(**vars(os) | {"replace": replace}))


def checkpoint(trap, nothing):
    del nothing
    saving = threading.Event()

    def audit(event, args):
        if saving.is_set() and event in ("open", "os.mkdir", "os.rename", "os.remove"):
            if "checkpoints" in str(args[0]) and trap.passes():
                trap.strike(f"{event} {args[0]}")

    sys.addaudithook(audit)
    _around_save(saving.set, saving.clear)


def during(trap, milliseconds):
    from orbax.checkpoint._src.path import atomicity  # where the folder gets its final name

    finalize = atomicity.AtomicRenameTemporaryPath.finalize

    async def slow_finalize(self, *args, **kwargs):
        time.sleep(0.3)
        return await finalize(self, *args, **kwargs)

    put(atomicity.AtomicRenameTemporaryPath, "finalize", slow_finalize)
    saving = threading.Event()

    def start_clock():
        saving.set()
        if trap.passes():
            threading.Timer(float(milliseconds) / 1000, in_time).start()

    def in_time():
        trap.strike("save" if saving.is_set() else "MISSED")

    _around_save(start_clock, saving.clear)


def prune(trap, nothing):
    del nothing
    original = levels.prune_masks_on_host

    def prune_and_die(*args, **kwargs):
        masks = original(*args, **kwargs)
        if trap.passes():
            trap.strike("prune")
        return masks

    put(levels, "prune_masks_on_host", prune_and_die)


def train(trap, nothing):
    del nothing
    _before(LevelProgress, "on_progress", trap)


def null(trap, nothing):
    del nothing
    _before(run, "record_nulls", trap)


def _before(owner, name, trap):
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        if trap.passes():
            trap.strike(name)
        return original(*args, **kwargs)

    put(owner, name, wrapped)


def _around_save(before, after):
    save = Checkpoints.save

    def wrapped(self, level, flat):
        before()
        save(self, level, flat)
        after()

    put(Checkpoints, "save", wrapped)


def _is_temporary_of(path, name):
    return files.is_temporary(path) and path.name.rsplit(".", 2)[0].endswith(name)


KINDS = {f.__name__: f for f in (half, rename, checkpoint, during, prune, train, null)}

if __name__ == "__main__":
    point, marker, *flags = sys.argv[1:]
    kind, where, count = point.split(":")
    KINDS[kind](Trap(int(count), marker), where)
    sys.argv[1:] = flags
    cli.main(imp_flow.run, imp_flow.PRESETS, prog="python -m experiments.imp_flow")
