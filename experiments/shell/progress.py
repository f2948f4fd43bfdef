"""One progress display: a bar on a terminal, throttled lines elsewhere."""

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from experiments.shell.cli import stop_if_asked

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows how far work is and, once the speed of its own programs is known, the time left.

    The clock starts with the first piece of work that is done: what came before it was compiling.
    Safe to use from several threads; every report raises `KeyboardInterrupt` after Ctrl-C.
    """

    def __init__(self, console: Console, *, total: float, text: str = "compiling"):
        """Describes the whole work, in any unit that goes with time."""
        self._console, self._total, self._done = console, total, 0.0
        self._lock, self._last_line = threading.RLock(), 0.0
        self._first: tuple[float, float] | None = None
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task(text, total=total, left="")

    def __enter__(self):
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def skip(self, done: float) -> None:
        """Says what earlier starts have done; it tells nothing of the speed."""
        self._done, self._first = done, None

    def advance(self, work: float, text: str) -> None:
        """Reports a piece of work that is done."""
        with self._lock:  # two threads must not start from the same sum
            self.show(text, done=self._done + work)

    def show(self, text: str, *, done: float | None = None, force: bool = False) -> None:
        """Reports where the work stands; without a terminal at most once in a few seconds.

        Args:
          text: What is being done.
          done: Work done so far; as before if it is left out.
          force: Print the line whenever the last one was.
        """
        stop_if_asked()
        with self._lock:
            now = time.monotonic()
            if done is not None and done > self._done:
                self._done = done
                self._first = self._first or (now, done)
            left = self._left(now)
            self._bars.update(self._task, completed=self._done, description=text, left=left)
            is_due = force or self._done >= self._total
            is_due = is_due or now - self._last_line > SECONDS_BETWEEN_LINES
            if self._console.is_terminal or not is_due:
                return
            self._last_line = now
            line = f"{text} · {left}" if left else text
            self._console.print(line, highlight=False, markup=False)

    def _left(self, now: float) -> str:
        if self._first is None or self._done <= self._first[1]:
            return ""
        began, at = self._first
        seconds = (now - began) / (self._done - at) * max(self._total - self._done, 0)
        return "{} min {:02d} s left".format(*divmod(round(seconds), 60))
