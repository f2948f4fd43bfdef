"""The command line of every experiment: flags from a frozen config, errors in one line."""

import contextlib
import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from imp_rg.imp.memory import explain_out_of_memory

ConfigT = TypeVar("ConfigT")

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

interrupted = threading.Event()
"""Set by Ctrl-C; replicates look at it between slices, so that a level need not end first."""


def stop_if_asked() -> None:
    """Raises `KeyboardInterrupt` after Ctrl-C; called wherever nothing is lost by it."""
    if interrupted.is_set():
        raise KeyboardInterrupt


def renamed(old: str, new: str) -> None:
    """Ends a command that has another name now with one line that says it."""
    print(f"error: experiments.{old} is called experiments.{new} now", file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)


def parse(presets: Mapping[str, ConfigT], args: Sequence[str], *, prog: str) -> ConfigT:
    """Reads flags over the defaults of the chosen preset.

    tyro explains a mistake in a box of several lines; it is reduced to one, exit code 2 kept.
    """
    name = _preset_name(args)
    config = presets.get(name, presets["default"])
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(type(config), default=config, args=list(args), prog=prog)
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        print(_one_line(complaint.getvalue()), file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT) from None


def _preset_name(args: Sequence[str]) -> str:
    named = re.findall(r"--preset[= ](\S+)", " ".join(args))
    return named[-1] if named else "default"


def _one_line(box: str) -> str:
    """The sentences of tyro's box: up to the rule that precedes its hints, and the nearest flag."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    lines = [line for line in lines if line and line[0] not in "╭╰"]
    rule = next((i for i, line in enumerate(lines) if set(line) <= set("─")), len(lines))
    text = " ".join(lines[:rule])
    text = re.sub(r"^Error parsing [\w.-]+: (?=\w+: )", "", text)
    near = re.search(r"Perhaps you meant: (--[\w-]+)", " ".join(lines[rule + 1 :]))
    return f"error: {text}" + (f" (nearest: {near.group(1)})" if near else "")


RESUMABLE = "finished levels are saved, the same command goes on from there"


def main(
    run: Callable[[Any], Path],
    presets: Mapping[str, Any],
    *,
    prog: str,
    when_stopped: str = RESUMABLE,
) -> None:
    """Runs an experiment from the command line; bad input becomes one line and exit code 2.

    After Ctrl-C one line says `when_stopped`: what is lost and how to go on.
    """
    config = parse(presets, sys.argv[1:], prog=prog)
    interrupted.clear()
    signal.signal(signal.SIGINT, _on_interrupt)
    # Orbax logs what the run says in a line of its own.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        with explain_out_of_memory():
            run(config)
    except (ValueError, OSError, ImportError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT) from None
    except KeyboardInterrupt:
        print(f"\nstopped; {when_stopped}", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None


def _on_interrupt(signum, frame):
    """First Ctrl-C: leave at the next slice or level. Second: at once."""
    del signum, frame
    if interrupted.is_set():
        raise KeyboardInterrupt
    interrupted.set()
    os.write(2, b"\nstopping; once more to stop at once\n")
