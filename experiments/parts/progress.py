"""Live progress on a terminal, throttled plain lines elsewhere."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.parts.cli import interrupted

SECONDS_BETWEEN_LINES = 5.0


def make_bars(console: Console) -> Progress:
    """Bars with share, time and time left; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def duration_text(seconds: float) -> str:
    """Minutes, or hours if it is more than one."""
    return f"{seconds / 3600:,.1f} hours" if seconds > 3600 else f"{seconds / 60:.1f} minutes"


class LevelProgress:
    """Shows level, seed, loss, test metric, density and the time left of a run.

    `on_progress` is called from the threads of all replicates.
    """

    def __init__(
        self,
        *,
        seeds: list[int],
        num_levels: int,
        steps: range,
        console: Console,
        metric: str = "accuracy",
    ):
        """Describes the whole run; `steps` are those of one level, `metric` is a name."""
        self._seeds, self._steps, self._console = seeds, steps, console
        self._num_levels, self._level, self._density = num_levels, 0, 1.0
        self._steps_done = 0
        self._metric, self._measured = metric, ""
        self._lock = threading.Lock()
        self._last_line = 0.0
        self._begun: float | None = None
        self._first_done = 0
        self._bars = make_bars(console)
        self._total = num_levels * len(steps) * len(seeds)
        self._task = self._bars.add_task("compiling", total=self._total)

    def __enter__(self) -> "LevelProgress":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start_level(self, level: int, density: float, active: list[int]) -> None:
        """Announces a level."""
        self._level, self._density = level, density
        self._active = [self._seeds[i] for i in active]
        self._done_in_level = dict.fromkeys(self._active, 0)
        self._steps_done = level * len(self._steps) * len(self._seeds)
        if self._begun is None:
            self._begun, self._first_done = time.monotonic(), self._steps_done
        self._show(f"level {level}/{self._num_levels - 1} · density {density:.3f}", force=False)

    def on_progress(self, replicate: int, step: int, loss: float) -> None:
        """Reports a replicate's step and loss; raises `KeyboardInterrupt` after Ctrl-C."""
        if interrupted.is_set():
            raise KeyboardInterrupt
        seed = self._active[replicate]
        with self._lock:
            if step > self._steps.start:  # steps before are the way to the rewind point
                self._done_in_level[seed] = step - self._steps.start
            self._show(
                f"level {self._level}/{self._num_levels - 1} · density {self._density:.3f} · "
                f"seed {seed} · step {step}/{self._steps.stop} · loss {loss:.3f}{self._measured}",
                force=False,
            )

    def end_level(self, percent: float) -> None:
        """Reports the test metric of the level, mean over seeds."""
        self._measured = f" · {self._metric} {percent:.1f} %"
        self._done_in_level = dict.fromkeys(self._active, len(self._steps))
        self._show(
            f"level {self._level}/{self._num_levels - 1} · density {self._density:.3f}"
            f"{self._measured}",
            force=True,
        )

    def _show(self, text: str, *, force: bool) -> None:
        done = self._steps_done + sum(self._done_in_level.values())
        self._bars.update(self._task, completed=done, description=text)
        now = time.monotonic()
        if self._console.is_terminal or not (
            force or now - self._last_line > SECONDS_BETWEEN_LINES
        ):
            return
        self._last_line = now
        self._console.print(f"{text}{self._left(done, now)}", highlight=False)

    def _left(self, done: int, now: float) -> str:
        if self._begun is None or done <= self._first_done:
            return ""
        seconds = (now - self._begun) / (done - self._first_done) * (self._total - done)
        return " · {} min {:02d} s left".format(*divmod(round(seconds), 60))
