"""One start of a command: console, clock, folder, time needed, record of the environment, page."""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from imp_rg.report.page import Page, write_page
from imp_rg.runs.files import read_json, write_json
from imp_rg.runs.folder import RunFolder, config_hash, describe_environment

AS_IS: Any = {"highlight": False, "markup": False, "soft_wrap": True}
"""How text with paths is printed: brackets are no markup, a long line stays one."""


class Study:
    """What every command does around its own work.

    Attributes:
      name: Of the command, below `experiments`.
      console: Where it speaks.
      command: What was typed, for the record.
      began: When, on the monotonic clock.
    """

    def __init__(self, name: str, *, quiet: bool = False):
        """Starts the clock."""
        self.name, self.began = name, time.monotonic()
        self.console = Console(width=None if sys.stdout.isatty() else 120, quiet=quiet)
        self.command = shlex.join(["python", "-m", f"experiments.{name}", *sys.argv[1:]])

    def say(self, text: str) -> None:
        """Prints a line as it is."""
        self.console.print(text, **AS_IS)

    def default_folder(self, *stem: str, settings: Mapping[str, Any], former: str = "") -> Path:
        """``runs/NAME/STEM-HASH``: other settings, other folder.

        Args:
          *stem: What the folder is called before the hash.
          settings: What the hash is of.
          former: An earlier name of the command, below which a folder stays where it is.
        """
        folder = "-".join([*stem, config_hash(settings)])
        there = Path("runs") / former / folder
        return there if former and there.is_dir() else Path("runs") / self.name / folder

    def announce(self, seconds: float, what: str = "") -> None:
        """Says how long the work will take, at the speed of what was timed."""
        about = f"{what}: about" if what else "about"
        self.say(f"{about} {duration_text(seconds)} at the speed of the first steps")

    def describe(
        self, folder: RunFolder, *, is_finished: bool = True, seconds: float | None = None
    ) -> None:
        """Writes ``environment.json``: versions, device, commit, command, time.

        Args:
          folder: Of the results.
          is_finished: Whether everything asked for is there.
          seconds: Of all starts; of this one if it is left out.
        """
        seconds = time.monotonic() - self.began if seconds is None else seconds
        environment = describe_environment(command=self.command, seconds=seconds)
        write_json(folder.environment, environment | {"finished": is_finished})

    def table(self, frame: pd.DataFrame, title: str = "") -> None:
        """Prints a table of text (`imp_rg.report.columns.tabulate`)."""
        shown = Table(*map(str, frame.columns), title=title or None)
        for row in frame.itertuples(index=False):
            shown.add_row(*row)
        self.console.print(shown)

    def report(self, page: Page, folder: Path) -> Path:
        """Writes the page, says its answers and where it is; returns the folder."""
        path = write_page(page, folder)
        for sentence in page.answers:
            self.say(sentence)
        self.say(f"report: {path}")
        return folder


def seconds_so_far(folder: RunFolder) -> float:
    """Time of the earlier starts; 0 for a new folder. House definition."""
    path = folder.environment
    return float(read_json(path)["seconds"]) if path.is_file() else 0.0


def duration_text(seconds: float) -> str:
    """Minutes, or hours if it is more than one."""
    return f"{seconds / 3600:,.1f} hours" if seconds > 3600 else f"{seconds / 60:.1f} minutes"


def seconds_of(call: Callable[[], Any]) -> float:
    """Time of a call, after one that compiles. House definition."""
    call()
    began = time.monotonic()
    call()
    return time.monotonic() - began
